"""Where a run's measurements go: sinks by name, and what happens when one fails.

To write one of your own, implement `Sink` in a file and name it `--logger FILE.py:CLASS`.
"""

import contextlib
import importlib
import importlib.util
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

from miras.config import plugins, unknown
from miras.errors import ConfigError

_BUILT_IN = {  # name: (module, class, package, what installs it)
    "jsonl": ("miras.train.loggers.jsonl", "JsonLines", "json", ""),
    "tensorboard": (
        "miras.train.loggers.tensorboard", "TensorBoard", "tensorboardX", "tensorboardX",
    ),
    "wandb": ("miras.train.loggers.trackers", "WandB", "wandb", "wandb"),
    "trackio": ("miras.train.loggers.trackers", "Trackio", "trackio", "trackio"),
}  # fmt: skip
_OWN = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


class Opening(NamedTuple):
    """The argument with which a sink is made.

    Attributes:
        folder: the run's, which exists.
        config: the run's, as plain JSON values.
        after: the step that the run goes on from; 0 for a new one.
    """

    folder: pathlib.Path
    config: Mapping[str, Any]
    after: int


class Sink(Protocol):
    """Takes a run's measurements; made with an `Opening`, in process 0 only.

    It may raise anything: the run warns once, leaves the sink out and goes on.
    """

    def __init__(self, run: Opening): ...

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Take one measurement.

        Args:
            step: updates done. A run that was killed may write steps again.
            kind: "train" (means since the one before), "held_out" or "health".
            values: numbers, lists of numbers by layer, or dicts of them.
        """
        ...

    def close(self) -> None:
        """Called once, when the run ends."""
        ...


Make = Callable[[Opening], Any]  # a sink's class


class Sinks:
    """The sinks of a run, in process 0; none of them can stop it.

    Args:
        made: the sinks' classes by name, see `find`.
        run: what they are made with.
        warn: called with one line that says what failed, once for each sink.
    """

    def __init__(
        self,
        made: Mapping[str, Callable[[Opening], Sink]],
        run: Opening,
        warn: Callable[[str], Any],
    ):
        self._warn = warn
        self._sinks: dict[str, Sink] = {}
        for name, make in made.items() if jax.process_index() == 0 else ():
            with self._guard(name):
                self._sinks[name] = make(run)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Give one measurement to each sink, as `Sink.write`."""
        for name, sink in list(self._sinks.items()):
            with self._guard(name):
                sink.write(step, kind, values)

    def close(self) -> None:
        """Close each sink."""
        for name, sink in list(self._sinks.items()):
            with self._guard(name):
                sink.close()
        self._sinks.clear()

    @contextlib.contextmanager
    def _guard(self, name: str):
        try:
            yield
        except Exception as error:
            self._sinks.pop(name, None)
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._warn(f"warning: logger {name} failed ({reason}); the run goes on without it.")


def default() -> tuple[str, ...]:
    """The sinks of a run that names none: JSON lines, and TensorBoard where it is installed."""
    return ("jsonl", "tensorboard") if _installed("tensorboardX") else ("jsonl",)


def check_name(name: str) -> None:
    """Check that a sink's name can be one; nothing is imported.

    Raises:
        ConfigError: with the legal ones.
    """
    if name not in _BUILT_IN and not _OWN.fullmatch(name):
        raise unknown("logger", name, [*_BUILT_IN, "FILE.py:CLASS"])


def load_own(names: Sequence[str]) -> tuple[str, ...]:
    """Load the files of a user's own sinks as plugins; returns the names without folders.

    Raises:
        ConfigError: for a file that cannot be loaded.
    """
    for name in names:
        if found := _OWN.fullmatch(name):
            plugins.load(found["file"])
    return tuple(pathlib.Path(name).name if _OWN.fullmatch(name) else name for name in names)


def find(names: Sequence[str] | None) -> dict[str, Make]:
    """The sinks' classes by name; None means `default`.

    Raises:
        ConfigError: for an unknown name, a package that is not installed, or a file that cannot
            be loaded or lacks the class.
    """
    return {name: _find(name) for name in (default() if names is None else names)}


def _find(name: str) -> Make:
    check_name(name)
    if name in _BUILT_IN:
        module, attribute, package, install = _BUILT_IN[name]
        if not _installed(package):
            raise ConfigError(
                f"logger {name!r} needs the package {package}, which is not installed: run "
                f"`pip install {install}`, or leave it out of --logger."
            )
        return getattr(importlib.import_module(module), attribute)
    found = _OWN.fullmatch(name)
    assert found is not None
    own = f"{plugins.PREFIX}{pathlib.Path(found['file']).stem}"
    if own not in sys.modules:
        plugins.load(found["file"])
    made = getattr(sys.modules[own], found["name"], None)
    if not callable(made):
        raise ConfigError(
            f"logger {name!r}: {found['file']} has no class {found['name']}: give FILE.py:CLASS."
        )
    return made


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a module that is None or has no spec
        return package in sys.modules and sys.modules[package] is not None


def scalars(prefix: str, value: Any) -> dict[str, float]:
    """A measurement as numbers by name, "health/norm/layer_0" for a list by layer."""
    if isinstance(value, Mapping):
        items = [(f"{prefix}/{name}", v) for name, v in value.items()]
    elif isinstance(value, list):
        items = [(f"{prefix}/layer_{layer}", v) for layer, v in enumerate(value)]
    else:
        return {prefix: value}
    return {name: x for key, v in items for name, x in scalars(key, v).items()}
