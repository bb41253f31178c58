"""The registry of recipes: named runs, as functions from a model to the config of its run.

A recipe of your own may be in a file given to `miras --plugin`, or in a module that an installed
package names as an entry point of the group `miras.recipe`:

    @register("tiny-1b", parameters=20_000_000, tokens=1_000_000_000, source="ours")
    def tiny(model):
        return RunConfig(dataclasses.replace(model, layers=6, width=384, heads=6))
"""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping
from types import MappingProxyType

from miras.config import require, unknown
from miras.config.choices import shown
from miras.errors import ConfigError
from miras.models import LanguageModelConfig
from miras.train import RunConfig

GROUP = "miras.recipe"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")

Build = Callable[[LanguageModelConfig], RunConfig]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named run, of any model.

    Attributes:
        name: for `miras train --recipe`.
        parameters: about how many a model has, as papers name its size.
        tokens: on which it is trained, about.
        source: the paper, and its table or section.
        build: the config of the run of a model, whose sizes it replaces.
        slices: names of slices of accelerators on which a step of it fits.
    """

    name: str
    parameters: int
    tokens: int
    source: str
    build: Build
    slices: tuple[str, ...] = ()


_recipes: dict[str, Recipe] = {}
_tried: set[str] = set()  # entry points


def recipes() -> Mapping[str, Recipe]:
    """All recipes by name, in order of registration; those of installed packages are last."""
    _load_entry_points()
    return MappingProxyType(_recipes)


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: for an unknown name, with the nearest match.
    """
    if name not in _recipes:
        _load_entry_points()
    if name not in _recipes:
        raise unknown("recipe", name, _recipes, see="`miras recipes`")
    return _recipes[name]


def register(
    name: str, *, parameters: float, tokens: float, source: str, slices: tuple[str, ...] = ()
) -> Callable[[Build], Build]:
    """Decorator: register a function from a model to the config of its run as a recipe.

    A function with the same module and name replaces the previous one, so that a notebook's cell
    can run twice.

    Args:
        name: of lower-case letters, digits, "-", "_" and ".".
        parameters: about how many a model has, > 0.
        tokens: on which it is trained, > 0.
        source: the paper, and its table or section.
        slices: names of slices on which a step fits.

    Raises:
        ConfigError: the name is taken, or is not of these characters.
    """
    require(
        bool(name) and set(name) <= _NAME,
        f"recipe {shown(name)} must have a name of lower-case letters, digits, '-', '_' and '.'.",
    )

    def decorate(build: Build) -> Build:
        if name in _recipes and not _same(_recipes[name].build, build):
            raise ConfigError(f"recipe {name!r} is already registered; choose another name.")
        _recipes[name] = Recipe(name, int(parameters), int(tokens), source, build, slices)
        return build

    return decorate


def _same(taken: Build, new: Build) -> bool:
    """Whether both are the same function outside miras, defined twice."""
    same = (taken.__module__, taken.__qualname__) == (new.__module__, new.__qualname__)
    return same and not taken.__module__.startswith("miras.")


def _load_entry_points() -> None:
    for entry in importlib.metadata.entry_points(group=GROUP):
        if entry.value in _tried:
            continue
        _tried.add(entry.value)
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"the entry point {entry.name!r} = {entry.value!r} in group {GROUP!r} cannot be "
                f"loaded ({type(error).__name__}: {error}): repair or uninstall its package."
            ) from error
