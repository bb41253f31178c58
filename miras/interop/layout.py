"""Layout: the contract of a published layout of weights, and the registry of all."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from miras.config.comparison import difference
from miras.errors import ConfigError
from miras.interop import table
from miras.interop.published import Published
from miras.interop.table import Entry
from miras.models.config import LanguageModelConfig

# How a model is computed, not which function it is.
_EXECUTION = ("chunk", "dtype", "remat", "save_every", "precision", "backend", "refine")


class Layout:
    """A published layout: a config mapping and a table of names; no layer of its own.

    To add one: subclass with the class attributes, implement `config`, `published`, `outer` and
    `block`, and decorate with `@register`. The layers are those of miras: what the layout asks of
    them is an option of theirs.

    Attributes:
        model_type: of `config.json`.
        architecture: the class that transformers or flash-linear-attention has for it.
        defaults: of the class of `config.json`, for fields that it omits.
        layer: prefix of the tensors of layer {}.
        head: tensor of the head, which a tied model does not have.
        rounded: names, inside a layer, of tensors whose form rounds.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    layer: ClassVar[str] = "model.layers.{}."
    head: ClassVar[str] = "lm_head.weight"
    rounded: ClassVar[tuple[str, ...]] = ()

    def config(self, published: Published) -> LanguageModelConfig:
        """The config of the model.

        Raises:
            ConfigError: a field has a value that miras does not represent.
        """
        raise NotImplementedError

    def published(self, config: LanguageModelConfig) -> dict[str, Any]:
        """The fields of `config.json`, of a config that `config` may have returned."""
        raise NotImplementedError

    def outer(self, config: LanguageModelConfig) -> tuple[Entry, ...]:
        """The entries outside of the blocks, but for the head."""
        raise NotImplementedError

    def block(self, config: LanguageModelConfig, letter: str) -> tuple[Entry, ...]:
        """The entries of a block of the pattern, with names inside of layer and block."""
        raise NotImplementedError

    def absent(self, config: LanguageModelConfig, n: int) -> dict[str, tuple[int, ...]]:
        """Parameters of layer n that the layout does not have, since they do nothing there.

        They are zeros: their shapes by the path inside of the block.
        """
        del config, n
        return {}

    def select(
        self, config: LanguageModelConfig, tensors: Mapping[str, np.ndarray]
    ) -> Mapping[str, np.ndarray]:
        """The tensors of a checkpoint by the names of the table."""
        del config
        return tensors

    def read_config(self, fields: Mapping[str, Any]) -> LanguageModelConfig:
        """`config` of the fields of a config.json."""
        return self.config(Published(fields, self.defaults))

    def mismatch(self, config: LanguageModelConfig) -> list[str]:
        """Why a model cannot be written in this layout; empty if it can."""
        try:
            fields = {"model_type": self.model_type, **self.published(config)}
            back = self.read_config(fields)
        except (ConfigError, AttributeError, KeyError, TypeError) as error:
            return [str(error) or type(error).__name__]
        return difference(_function(config), _function(back))

    def tensors(self, config: LanguageModelConfig, params: Any) -> dict[str, np.ndarray]:
        """The published tensors of nested parameters."""
        found: dict[str, np.ndarray] = {}
        for entries, values in self._places(config, params):
            found |= table.save(entries, values)
        return found

    def parameters(self, config: LanguageModelConfig, tensors: Mapping[str, np.ndarray]) -> Any:
        """The nested parameters, float32, of published tensors.

        Raises:
            ConfigError: a tensor is missing or has another shape, or there are further ones.
        """
        tensors = self.select(config, tensors)
        if config.tie:
            tensors = {name: w for name, w in tensors.items() if name != self.head}
        entries = [*self._outer(config)]
        stacked: dict[str, list[str]] = {}
        zeros: dict[str, np.ndarray] = {}
        for n in range(config.layers):
            absent = self.absent(config, n)
            for entry, name in self._of_layer(config, n):
                own = f"{n}.{entry.parameter}"
                if entry.parameter in absent:
                    zeros[own] = np.zeros(absent[entry.parameter], np.float32)
                else:
                    entries.append(entry._replace(parameter=own))
                stacked.setdefault(name, []).append(own)
        found = table.load(entries, tensors) | zeros
        for name, layers in stacked.items():
            found[name] = np.stack([found.pop(own) for own in layers])
        return _nested(found)

    def _outer(self, config: LanguageModelConfig) -> tuple[Entry, ...]:
        own = self.outer(config)
        head = Entry(self.head, "head.kernel", table.linear(config.vocab))
        return own if config.tie else (*own, head)

    def _of_layer(self, config: LanguageModelConfig, n: int) -> list[tuple[Entry, str]]:
        """The entries of a layer, and the path of each parameter, stacked over the groups."""
        at = n % len(config.letters)
        letter, prefix = config.letters[at], self.layer.format(n)
        return [
            (entry._replace(tensor=prefix + entry.tensor), f"groups.blocks.{letter}{at}.{path}")
            for entry in self.block(config, letter)
            for path in [entry.parameter]
        ]

    def _places(self, config: LanguageModelConfig, params: Any):
        parameters = flat(params)
        yield self._outer(config), parameters
        for n in range(config.layers):
            group, absent = n // len(config.letters), self.absent(config, n)
            found = [at for at in self._of_layer(config, n) if at[0].parameter not in absent]
            values = {entry.parameter: parameters[path][group] for entry, path in found}
            yield [entry for entry, _ in found], values


REGISTERED: dict[str, Layout] = {}


def register(layout: type[Layout]) -> type[Layout]:
    """Make a layout known by its `model_type`."""
    assert layout.model_type not in REGISTERED, layout.model_type
    REGISTERED[layout.model_type] = layout()
    return layout


def _function(config: LanguageModelConfig) -> LanguageModelConfig:
    """The config with the defaults of how it is executed."""
    default = type(config)()
    return dataclasses.replace(config, **{name: getattr(default, name) for name in _EXECUTION})


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, last = path.split(".")
        place = nested
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
    return nested


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Nested arrays by dotted path."""
    found = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = np.asarray(value)
    return found
