"""The mixer `memory`: a memory alone."""

import dataclasses
from typing import ClassVar

from miras.mixers.base import TokenMixer, register


@register("memory")
@dataclasses.dataclass(frozen=True)
class MemoryMixer(TokenMixer):
    """A memory with its projections, gates and output norm: `miras.layers.MemoryLayer`."""

    takes_mimo: ClassVar[bool] = True
    takes_sizes: ClassVar[bool] = True

    def build(self, config, width, heads, rngs):
        """The layer."""
        from miras.layers.memory_layer import MemoryLayer  # configs load without flax

        return MemoryLayer(config.memory, width, heads, config=config.layer, rngs=rngs)

    def shares_values(self, config):
        """The option `layer.value_residual`."""
        return config.layer.value_residual

    def describe(self, config):
        """The rule's parts."""
        return f"memory ({', '.join(config.rule.kinds().values())})"
