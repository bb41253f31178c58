"""Paths of fields: the configs below a config, and the field that a short path means."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from miras.config.base import Config, require
from miras.config.choices import unknown
from miras.errors import ConfigError


def below(config: Config) -> Iterator[tuple[list[str], Config]]:
    """The configs directly below a config, with their paths; entries of mappings and of lists."""
    for field in dataclasses.fields(config):
        if config.standing(field.name) != "hidden":
            for name, child in entries(getattr(config, field.name)):
                yield [field.name, *name], child


def entries(value: Any) -> Iterator[tuple[list[str], Config]]:
    """A value that is a config, or the configs that it contains, with their names in it."""
    if isinstance(value, Config):
        yield [], value
    elif isinstance(value, Mapping):
        yield from (([name], child) for name, child in value.items() if isinstance(child, Config))
    elif isinstance(value, tuple):
        of_list = enumerate(value)
        yield from (([str(n)], child) for n, child in of_list if isinstance(child, Config))


def resolve(config: Config, path: str) -> list[str]:
    """The names from the root of a config to the field that a path of `override` means.

    Raises:
        ConfigError: the first name of the path is unknown or ambiguous.
    """
    found = _resolve(config, [name.strip() for name in path.split(".")])
    return found[:-1] if len(found) > 1 and found[-1] == "kind" else found


def _resolve(config: Config, path: list[str]) -> list[str]:
    own, deeper, also, seen = [], [], [], []
    without_effect: list[Config] = []
    level: list[tuple[list[str], Config]] = [([], config)]
    depth = 0
    while level:
        depth += 1
        for prefix, part in level:
            if depth <= config.own_levels and part.named_entry(path[0]):
                return _inside(config, [*prefix, str(part.mapping), path[0]], path[1:])
            for field in dataclasses.fields(part):
                standing = part.standing(field.name)
                if standing == "hidden":
                    without_effect += [part] if field.name == path[0] else []
                    continue
                where = [*prefix, field.name]
                seen.append(".".join(where))
                if field.name == path[0]:
                    first = depth <= config.own_levels and standing == "own"
                    (own if first else deeper).append(where)
                elif path[0] in field.metadata.get("also", ()):
                    also.append(where)
        level = [([*p, *name], child) for p, part in level for name, child in below(part)]
    found = (own or deeper) + also
    if len(found) == 1 and not also:
        return _inside(config, found[0], path[1:])
    if found:
        full = ", ".join(".".join(where + path[1:]) for where in found)
        many = f"is ambiguous: write one of {full}" if len(found) > 1 else f"is here {full}: use it"
        raise ConfigError(f"key {path[0]!r} {many}.")
    for part in without_effect[:1]:
        check_effect(part, path[0])
    names = dict.fromkeys(name.rsplit(".", 1)[-1] for name in seen)
    raise unknown("key", ".".join(path), seen, spellings=names, see="the `config.json` of any run")


def _inside(config: Config, prefix: list[str], rest: list[str]) -> list[str]:
    """The full path of `rest` below a prefix; inside an entry, a path may be short again."""
    whole = [*prefix, *rest]
    part: Any = config
    for n, name in enumerate(whole):
        if isinstance(part, Config) and name == part.mapping and n + 2 < len(whole):
            entry = part.entry(whole[n + 1])
            inner = _resolve(entry, whole[n + 2 :])
            return [*whole[:n], *part.path_of_entry(whole[n + 1], inner)]
        if not isinstance(part, Config) or not hasattr(part, name):
            break
        part = getattr(part, name)
    return whole


def check_effect(config: Config, name: str) -> None:
    """Raise `ConfigError` for a field that has no effect in a config."""
    require(
        config.standing(name) != "hidden",
        f"{type(config).__name__}.{name} has no effect here, since {config.unused(name)}: "
        f"{config.instead(name)}.",
    )
