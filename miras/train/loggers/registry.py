"""The loggers that `--logger` names: built-in ones, and classes in files of the user."""

import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from miras.config import plugins, unknown
from miras.errors import ConfigError
from miras.train.loggers.base import LoggerContext

_BUILT_IN = {  # name: (module, class, required package, name for pip)
    "jsonl": ("miras.train.loggers.jsonl", "JsonLines", "json", ""),
    "tensorboard": (
        "miras.train.loggers.tensorboard", "TensorBoard", "tensorboardX", "tensorboardX",
    ),
    "wandb": ("miras.train.loggers.trackers", "WandB", "wandb", "wandb"),
    "trackio": ("miras.train.loggers.trackers", "Trackio", "trackio", "trackio"),
}  # fmt: skip
_FILE_AND_CLASS = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def default() -> tuple[str, ...]:
    """The default loggers: JSON lines, and TensorBoard if it is installed."""
    return ("jsonl", "tensorboard") if _installed("tensorboardX") else ("jsonl",)


def check_name(name: str) -> None:
    """Check the form of a logger's name; nothing is imported.

    Raises:
        ConfigError: the name is unknown; the message lists the legal ones.
    """
    if name not in _BUILT_IN and not _FILE_AND_CLASS.fullmatch(name):
        raise unknown("logger", name, [*_BUILT_IN, "FILE.py:CLASS"])


def load_files(names: Sequence[str]) -> tuple[str, ...]:
    """Load the files of user-defined loggers as plugins.

    Returns:
        The names, without the folders of the files.

    Raises:
        ConfigError: a file cannot be loaded.
    """
    for name in names:
        if found := _FILE_AND_CLASS.fullmatch(name):
            plugins.load(found["file"])
    return tuple(
        pathlib.Path(name).name if _FILE_AND_CLASS.fullmatch(name) else name for name in names
    )


def find(
    names: Sequence[str] | None,
) -> dict[str, Callable[[LoggerContext], Any]]:
    """The classes of loggers by name; None means `default()`.

    Raises:
        ConfigError: a name is unknown, a package is not installed, or a file cannot be loaded or
            has no such class.
    """
    return {name: _find(name) for name in (default() if names is None else names)}


def _find(name: str) -> Callable[[LoggerContext], Any]:
    check_name(name)
    if name in _BUILT_IN:
        home, attribute, package, install = _BUILT_IN[name]
        if not _installed(package):
            raise ConfigError(
                f"logger {name!r} needs the package {package}, which is not installed: run "
                f"`pip install {install}`, or remove it from --logger."
            )
        return getattr(importlib.import_module(home), attribute)
    found = _FILE_AND_CLASS.fullmatch(name)
    assert found is not None
    module = f"{plugins.PREFIX}{pathlib.Path(found['file']).stem}"
    if module not in sys.modules:
        plugins.load(found["file"])
    cls = getattr(sys.modules[module], found["name"], None)
    if not callable(cls):
        raise ConfigError(
            f"logger {name!r}: {found['file']} has no class {found['name']}: give FILE.py:CLASS."
        )
    return cls


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # the entry in sys.modules is None or has no spec
        return package in sys.modules and sys.modules[package] is not None
