"""The registry of presets: named models of the literature, as configs."""

import dataclasses
from collections.abc import Callable

from miras.config import require, unknown
from miras.errors import ConfigError
from miras.mixers.names import NamedConfigs
from miras.models.block_config import BlockConfig
from miras.models.config import LanguageModelConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named model.

    Attributes:
        name: for `miras.preset` and the command line.
        title: the name in the paper.
        source: the paper, and its equation or section.
        build: returns the config.
    """

    name: str
    title: str
    source: str
    build: Callable[[], LanguageModelConfig]

    @property
    def paper(self) -> str:
        """The arXiv number; "" if the source has none."""
        return self.source.partition("arXiv ")[2][:10]


PRESETS: dict[str, Preset] = {}
ALIASES: dict[str, str] = {}  # names in other papers


def preset(name: str) -> LanguageModelConfig:
    """The config of a named model; its `rule` is the `Rule`.

    Raises:
        ConfigError: for an unknown name, with the nearest match and the presets.
    """
    return find(name).build()


def block(name: str) -> BlockConfig:
    """The block of a preset, with its number of heads.

    Raises:
        ConfigError: for an unknown name, or a preset of several blocks.
    """
    config = preset(name)
    letters = config.letters
    require(
        len(letters) == 1,
        f"preset {name!r} has several blocks, {' '.join(letters)}: give a preset of one block, and "
        "the others in the pattern.",
    )
    return dataclasses.replace(config.block(letters), heads=config.heads)


def find(name: str) -> Preset:
    """The preset of a name or alias; raises ConfigError as `preset` does."""
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
    """Decorator: register the config that a function returns as a preset.

    A function with the same module and name replaces the previous one, so that a notebook's cell
    can run twice.

    Args:
        title: the name in the paper.
        about: the source: the paper, and its equation or section. An equation before it is
            accepted and ignored, since `miras.equations` composes it from the parts.
        source: the source, as a keyword.
        equation: accepted and ignored.
        name: of the preset; the function's name if not given.
        alias: a second name.

    Raises:
        ConfigError: if the name is taken.
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
    """Whether both are the same function outside miras, defined twice."""
    same = (taken.__module__, taken.__qualname__) == (new.__module__, new.__qualname__)
    return same and not taken.__module__.startswith("miras.")


NamedConfigs.presets = (lambda: [*PRESETS, *ALIASES], block)
