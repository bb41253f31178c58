"""Configs of mixers and blocks by name: of a preset, or of a kind of mixer."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from miras.config import Config, from_dict, unknown
from miras.config.choices import shown
from miras.errors import ConfigError


class NamedConfigs:
    """Builds a config from a name or a dict, as `Registry` does for the parts of a rule.

    Attributes:
        presets: the names of presets, and a function that gives the block of one; set by
            `miras.presets`, which is imported when a name is first looked up.
    """

    presets: "tuple[Callable[[], list[str]], Callable[[str], Config]] | None" = None

    def __init__(self, cls: type[Config], kinds: Any):
        self.cls = cls
        self.kinds = kinds

    def build(self, spec: str | Mapping[str, Any]) -> Config:
        """A config from a preset's name, a mixer's kind, a mixer as a dict, or a dict of fields.

        Raises:
            ConfigError: the name is unknown, or as in `from_dict`.
        """
        if isinstance(spec, str):
            return self._named(spec)
        if "kind" in spec:
            return self.cls(mixer=self.kinds.build(spec))  # pyright: ignore
        return from_dict(self.cls, spec)

    def _named(self, name: str) -> Config:
        importlib.import_module("miras.presets")
        assert NamedConfigs.presets is not None
        names, block = NamedConfigs.presets
        if name in names():
            found = block(name)
            fields = {f.name: getattr(found, f.name) for f in dataclasses.fields(self.cls)}
            return self.cls(**fields)
        if name in self.kinds.names():
            return self.cls(mixer=self.kinds.build(name))  # pyright: ignore
        if name.startswith(("{", "[")):
            raise ConfigError(f"block {shown(name)} is not a dict: give a dict, or a name.")
        raise unknown("block", name, [*self.kinds.names(), *names()], see="`miras presets`")
