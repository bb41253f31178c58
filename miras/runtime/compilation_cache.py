"""The compilation cache of the command line: compiled programs in the user's cache folder.

JAX keeps compiled programs in the folder that `jax_compilation_cache_dir` names, and has none by
default. `miras` sets it for its own commands, before jax is imported; a library must not, so
`import miras` does not. `JAX_COMPILATION_CACHE_DIR` names another folder, also of an object store,
and `MIRAS_COMPILATION_CACHE=off` leaves JAX's default.
"""

import hashlib
import importlib.util
import os
import pathlib
import platform
import sys

SWITCH = "MIRAS_COMPILATION_CACHE"
FOLDER = "JAX_COMPILATION_CACHE_DIR"
_SIZE = "JAX_COMPILATION_CACHE_MAX_SIZE"
_BYTES = 10 * 2**30  # the programs that were used least recently are removed beyond it


def enable() -> None:
    """Set the environment variables that jax reads; none that is set, and none once it has."""
    if FOLDER not in os.environ and "jax" not in sys.modules:
        for name, value in settings().items():
            os.environ.setdefault(name, value)


def settings() -> dict[str, str]:
    """The environment variables by which jax uses the user's cache folder; none if that is off."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "false", "none"):
        return {}
    limited = importlib.util.find_spec("filelock") is not None  # without it, jax accepts no limit
    return {FOLDER: str(default_folder())} | ({_SIZE: str(_BYTES)} if limited else {})


def default_folder() -> pathlib.Path:
    """The folder for the programs of this machine: `$MIRAS_CACHE` or `~/.cache/miras`, compiled.

    A program for CPUs has the instructions of the processor that compiled it, and a home folder may
    be that of several machines, so the name has a hash of the processor's features.
    """
    home = os.environ.get("MIRAS_CACHE") or "~/.cache/miras"
    return pathlib.Path(os.path.expanduser(home)) / "compiled" / _processor()


def _processor() -> str:
    features = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            features = next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
