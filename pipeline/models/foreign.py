"""Checkpoint files of others, read without running anything that they may contain.

A checkpoint is a pickle, and a pickle is a program. torch reads it with `weights_only`, which runs none but tensor
constructors; on top of that the file is opened in a child process that has little memory and time, and in which
sockets, new processes and writing outside one folder are refused. There is no way round this.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MEMORY = 16 * 2**30  # of the child, address space included that libraries only reserve
SECONDS = 300
WRAPPERS = ("model_state_dict", "state_dict", "model", "net", "network", "sdf_network_fine")
HALVES = (("encoder_state_dict", "encoder."), ("decoder_state_dict", "decoder."))
TENSORFLOW = (".meta", ".index", ".ckpt", ".pb")
FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "ctypes.dlopen")
# How numpy's numbers and arrays are pickled, by the modules of its old and new versions.
NUMPY_CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
COMPILED = "_orig_mod."  # before the names of whatever module torch.compile was given
PARALLEL = "module."
# Weight normalisation as newer versions of torch name it, and as the originals did.
RENAMED = ((".parametrizations.weight.original0", ".weight_g"), (".parametrizations.weight.original1", ".weight_v"))
REFUSED = 3  # exit status of a child that found nothing it may read


class UnreadableCheckpoint(ValueError):
    """A file holds no tensors that can be read safely; the message says why and what to do."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a checkpoint file: safetensors, or what torch.save wrote.

    A state dict inside a larger checkpoint is found by the usual names, and its tensors or arrays of numpy are
    `unwrapped`. Raises UnreadableCheckpoint.
    """
    path = Path(path)
    if reason := _foreign_format(path):
        raise UnreadableCheckpoint(f"{path.name}: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "tensors.safetensors"
        command = [sys.executable, "-W", "ignore", "-m", "pipeline.models.foreign", str(path.resolve()), str(output)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        try:
            child = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env=environment, preexec_fn=_limit
            )
        except subprocess.TimeoutExpired:
            raise UnreadableCheckpoint(f"{path.name}: reading it took more than {SECONDS} s") from None
        if child.returncode == REFUSED:
            raise UnreadableCheckpoint(f"{path.name}: {child.stderr.strip()}")
        if child.returncode:
            raise UnreadableCheckpoint(f"{path.name}: reading it failed: {child.stderr.strip()[-500:]}")
        return load_file(output)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _foreign_format(path: Path) -> str | None:
    if not path.is_file():
        return "there is no such file"
    if path.suffix in TENSORFLOW or ".data-0" in path.name:
        return (
            "this is a TensorFlow checkpoint, which holds the variables of a graph under names of its own and needs "
            "TensorFlow to read. Convert it where TensorFlow is installed (tf.train.load_checkpoint lists the "
            "variables), and save the arrays with safetensors under the names of the published tensors"
        )
    return None


def state_dict_in(loaded: object) -> dict[str, Tensor]:
    """The tensors of a loaded checkpoint. Raises UnreadableCheckpoint where there are none."""
    if isinstance(loaded, Mapping):
        halves = {name: part for name, part in HALVES if name in loaded}
        if len(halves) == len(HALVES):
            return {
                prefix + key: value for name, prefix in HALVES for key, value in state_dict_in(loaded[name]).items()
            }
        inner = next((loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping)), None)
        if inner is not None:
            return state_dict_in(inner)
        arrays = {str(name): _array(value) for name, value in loaded.items()}
        tensors = {name: value for name, value in arrays.items() if isinstance(value, (Tensor, np.ndarray))}
        if tensors:
            return unwrapped(tensors)
    raise UnreadableCheckpoint(
        f"it holds a {type(loaded).__name__} without a state dict; looked for {', '.join(WRAPPERS)} and for tensors"
    )


def unwrapped(tensors: Mapping[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    """The tensors under the bare network's names.

    A "module." before every name, which data-parallel training leaves, and every "_orig_mod." of torch.compile are
    taken off, and the two tensors of a weight normalisation get their older names, weight_g and weight_v. Arrays of
    numpy become tensors. Raises UnreadableCheckpoint for other values, and where two names become one.
    """
    plain = {name: name.replace(COMPILED, "") for name in tensors}
    parallel = all(name.startswith(PARALLEL) for name in plain.values())
    renamed: dict[str, Tensor] = {}
    for written, name in plain.items():
        name = name.removeprefix(PARALLEL) if parallel else name
        for newer, older in RENAMED:
            name = name.replace(newer, older)
        if name in renamed:
            raise UnreadableCheckpoint(f"two of its tensors are {name}, one of them written {written}")
        renamed[name] = _tensor(name, tensors[written])
    return renamed


def _tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    """A tensor or an array as a tensor; an array is copied, its bytes in this machine's order."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if isinstance(value, (np.ndarray, np.generic)) and array.dtype.kind in "fiub":
        try:
            return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
        except TypeError:
            pass  # a kind of number that torch does not have, such as longdouble
    raise UnreadableCheckpoint(f"{name} is no tensor but a {type(value).__name__} of {array.dtype}")


class Ignored:
    """Stands in a checkpoint for a number of numpy's. Nothing of it is kept."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class PickledType:
    """Stands for a numpy.dtype. A pickle makes it of its code, such as "f4", and then states its byte order."""

    def __init__(self, code: object = "", *arguments: object) -> None:
        self.code = code
        self.order = ""

    def __setstate__(self, state: object) -> None:
        self.order = state[1]


class PickledArray:
    """Stands for a numpy.ndarray, so that a pickle calls nothing of numpy: what it states is kept, and read later."""

    def __init__(self, *arguments: object) -> None:
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _array(value: object) -> object:
    """The array that a stand-in was told of; any other value as it is, and so is an array of other than numbers."""
    if not isinstance(value, PickledArray):
        return value
    try:
        _, shape, kind, fortran, content = value.state
        dtype = np.dtype(f"{kind.order.replace('|', '')}{kind.code}")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    except (TypeError, ValueError, AttributeError):
        return value


STAND_INS = (
    *((Ignored, f"{core}.scalar") for core in NUMPY_CORES),
    *((PickledArray, f"{core}._reconstruct") for core in NUMPY_CORES),
    (PickledArray, "numpy.ndarray"),
    (PickledType, "numpy.dtype"),
)


def _guard(folder: Path) -> None:
    """From here on this process opens no connection, starts no program and writes below one folder only."""

    def watch(event: str, arguments: tuple) -> None:
        if event.startswith(FORBIDDEN):
            raise PermissionError(f"a checkpoint may not do this: {event}")
        if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
            if writes and not Path(os.fsdecode(arguments[0])).resolve().is_relative_to(folder):
                raise PermissionError(f"a checkpoint may not write to {os.fsdecode(arguments[0])}")

    sys.addaudithook(watch)


def _convert(source: Path, output: Path) -> None:
    _guard(output.parent.resolve())
    try:
        loaded = load_file(source)
    except Exception:
        # Not safetensors. `weights_only` is what makes this safe; it is never switched off.
        with torch.serialization.safe_globals(list(STAND_INS)):
            loaded = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in state_dict_in(loaded).items()}
    save_file(tensors, output)


def main() -> int:
    try:
        _convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except UnreadableCheckpoint as problem:
        print(problem, file=sys.stderr)
        return REFUSED
    except MemoryError:
        print(f"it needs more than {MEMORY / 2**30:.0f} GB to be read", file=sys.stderr)
        return REFUSED
    except Exception as problem:
        # torch's own message goes on to advise the unsafe way.
        first = str(problem).split("WeightsUnpickler error: ")[-1].strip().split("\n")[0]
        print(
            f"it is neither safetensors nor a checkpoint of plain tensors, and more is refused, since a pickle can run "
            f"any program: {first}\nSave the state dict alone, torch.save(model.state_dict(), …), where you trust it.",
            file=sys.stderr,
        )
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
