"""What to say where Isomill runs in a Python that is not its own; this module needs nothing but Python."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def wrong_python(missing: ModuleNotFoundError) -> str:
    """One sentence with what to type, where a library of the lock is missing. Raises what is a fault of our own."""
    if missing.name is None or missing.name.split(".")[0] == "pipeline":
        raise missing
    own = ROOT / ".venv" / "bin" / "activate"
    made = f". {own}" if own.is_file() else f"make -C {ROOT} setup && . {own}"
    return (
        f"{sys.executable} has no {missing.name!r}, so this is the Python of another environment; type:  {made}  and "
        f"the same command again"
    )
