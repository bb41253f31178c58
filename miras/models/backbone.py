"""Backbone: the blocks of a pattern over the depth in one scan, and the last norm."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import Health
from miras.layers.fast_weights import Measure
from miras.layers.norm import NORMS
from miras.models.blocks import NO_INPUTS, BlockInputs, Group, depths
from miras.models.config import LanguageModelConfig
from miras.models.state import ModelState
from miras.parallel.shard import KEPT_TIME, ROWS, constrain


class Backbone(nnx.Module):
    """The blocks of a model, from vectors to vectors; models derive from it and add their ends.

    Args:
        config: of the blocks.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        self.config = config

        @nnx.split_rngs(splits=config.layers // len(config.letters))
        @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: "layers"})
        def groups(rngs: nnx.Rngs) -> Group:
            return Group(config, rngs)

        self.groups = groups(rngs)
        norm = functools.partial(
            NORMS[config.norm_kind], (config.width,), ("embed",), config.norm_eps
        )
        self.norm = norm()
        self.embedding_norm = norm() if config.embedding_norm else None

    def init_state(self, batch: int) -> ModelState:
        """The initial state of `batch` rows."""
        dtype = jnp.dtype(self.config.dtype)
        make = nnx.vmap(lambda group: group.init_state(batch, dtype), in_axes=0)
        return ModelState(make(self.groups))

    def _first_values(
        self, x: Array, inputs: BlockInputs, state: ModelState | None
    ) -> Array | None:
        """The values of the first layer, which the scan gives every block; None if none asks.

        They are computed before the scan, and again by the layer itself: carried from block to
        block, they would be stored once a block for the backward pass.
        """
        if not self.config.value_residual:
            return None
        graphdef, params = nnx.split(self.groups)
        group = nnx.merge(graphdef, _first(params))
        before = None if state is None else _first(state.layers[0])
        values = group.blocks[group.order[0]].first_values(x, before, inputs)
        return constrain(values, ROWS, KEPT_TIME, None, None)

    def apply_blocks(
        self,
        x: Array,
        inputs: BlockInputs = NO_INPUTS,
        state: ModelState | None = None,
        *,
        segments_at_chunks: bool = False,
        health: bool | Measure = False,
    ) -> tuple[Array, ModelState, Any]:
        """The blocks and the norm applied to vectors.

        Args:
            x: [B, T, width], in `config.dtype`.
            inputs: segment ids and mask.
            state: to continue from; the initial one if None.
            segments_at_chunks: promise that segments begin at multiples of `config.align` only.
            health: True to measure the memories, or a measure of each.

        Returns:
            [B, T, width], the state after the last token, and what was measured: `Health` of
            leaves [memory layers], the results of the measure for each block of the pattern with a
            memory, or None.
        """
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        x = constrain(x, ROWS, KEPT_TIME, None)
        inputs = inputs._replace(values=self._first_values(x, inputs, state))

        def group(group: Group, x: Array, states: Any, inputs: BlockInputs, depths: Array):
            x, states, measured = group(
                x, states, inputs, depths, segments_at_chunks=segments_at_chunks, health=health
            )
            return x, (states, measured)

        over_groups = nnx.scan(
            group,
            in_axes=(0, nnx.Carry, None if state is None else 0, None, 0),
            out_axes=(nnx.Carry, 0),
        )
        states = None if state is None else state.layers
        x, (states, measured) = over_groups(self.groups, x, states, inputs, depths(self.config))
        memories: Any = tuple(measured[n] for n in self.config.memory_blocks)
        found = _in_order(memories) if health is True else memories
        return self.norm(x), ModelState(states), found if health else None


def _first(tree: Any) -> Any:
    """The leaves of the first of the groups, which are stacked."""
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _in_order(measured: tuple[Health, ...]) -> Health:
    """The health of the blocks of a pattern, leaves [groups], as that of layers, [layers]."""
    gates = dict.fromkeys(name for health in measured for name in health.gates)
    absent = jnp.full_like(measured[0].inner_loss, jnp.nan)
    same = [h._replace(gates={name: h.gates.get(name, absent) for name in gates}) for h in measured]
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1).reshape(-1), *same)
