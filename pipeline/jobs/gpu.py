"""One graphics card per job on a machine with several: Snakemake counts them and does not say which."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

CARDS = Path("/proc/driver/nvidia/gpus")
_HELD = []  # open files whose locks last as long as this process


def visible_gpus() -> int:
    """Cards this process may use, found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([name for name in chosen.split(",") if name.strip() not in ("", "-1")])
    return len(list(CARDS.iterdir())) if CARDS.is_dir() else 0


def take_gpus(count: int = 1) -> list[int]:
    """Take free cards for this process and name them in CUDA_VISIBLE_DEVICES, unless that is set or there is none.

    Where too few are free, because jobs that were started by hand hold them, say, the choice is left to torch.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return []
    folder = Path(tempfile.gettempdir()) / f"isomill-{os.getuid()}"  # one for all studies of a user
    folder.mkdir(mode=0o700, exist_ok=True)
    taken: dict[int, object] = {}
    for card in range(visible_gpus()):
        stream = open(folder / f"gpu{card}.lock", "w")  # noqa: SIM115 - closed with the process, and the lock with it
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            continue
        taken[card] = stream
        if len(taken) == count:
            _HELD.extend(taken.values())
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, taken))
            return list(taken)
    return []
