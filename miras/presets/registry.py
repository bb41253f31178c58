"""Preset: a named model of the literature, as plain config."""

import dataclasses
from collections.abc import Callable

from miras.config import unknown
from miras.errors import ConfigError
from miras.models.config import LanguageModelConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named model.

    Attributes:
        name: as given to `miras.preset` and to the command line.
        title: as the paper calls it.
        source: the paper, and its equation or section.
        build: makes the config.
    """

    name: str
    title: str
    source: str
    build: Callable[[], LanguageModelConfig]

    @property
    def paper(self) -> str:
        """The arXiv number; "" where the source names none."""
        return self.source.partition("arXiv ")[2][:10]


PRESETS: dict[str, Preset] = {}
ALIASES: dict[str, str] = {}  # what other papers call them


def preset(name: str) -> LanguageModelConfig:
    """The config of a named model; its `rule` is the `Rule`.

    Raises:
        ConfigError: naming the presets and the nearest match.
    """
    return find(name).build()


def find(name: str) -> Preset:
    """A named model, by its name or an alias of it; errors as `preset`."""
    name = ALIASES.get(name, name)
    if name not in PRESETS:
        raise unknown("preset", name, [*PRESETS, *ALIASES], see="`miras presets`")
    return PRESETS[name]


def register(
    title: str,
    *about: str,
    source: str = "",
    equation: str = "",
    name: str | None = None,
    alias: str | None = None,
):
    """Decorator: make what a function builds known by the function's name, or another.

    A function of the same module and name takes the place of the one before it, so that a
    notebook's cell may run twice.

    Args:
        title: as the paper calls it.
        about: the source: the paper, and its equation or section. An equation before it, as earlier
            versions had it, is not looked at: `miras.equations` composes that of the parts.
        source: the source by name.
        equation: not looked at, likewise.
        name: in place of the function's.
        alias: another name.

    Raises:
        ConfigError: when the name is taken.
    """
    del equation
    source = source or (about[-1] if about else "")

    def decorate(build: Callable[[], LanguageModelConfig]) -> Callable[[], LanguageModelConfig]:
        known = name or build.__name__
        if known in PRESETS and not _same(PRESETS[known].build, build):
            raise ConfigError(f"preset {known!r} is already registered; choose another name.")
        PRESETS[known] = Preset(known, title, source, build)
        if alias is not None:
            ALIASES[alias] = known
        return build

    return decorate


def _same(taken: Callable[[], LanguageModelConfig], new: Callable[[], LanguageModelConfig]) -> bool:
    """Whether one is the other, defined again outside miras."""
    same = (taken.__module__, taken.__qualname__) == (new.__module__, new.__qualname__)
    return same and not taken.__module__.startswith("miras.")
