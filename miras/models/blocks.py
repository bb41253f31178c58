"""Blocks: a token mixer and a channel mixer, and the group of blocks that a pattern repeats."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import Health
from miras.layers.gradient_order import before_those_below
from miras.layers.norm import NORMS
from miras.models import remat
from miras.models.config import LanguageModelConfig
from miras.models.state import BlockState, mixer_state
from miras.parallel.shard import KEPT_TIME, ROWS, TIME, constrain, over_rows


class BlockInputs(NamedTuple):
    """Inputs of every block besides the residual stream.

    Attributes:
        segment_ids: [B, T], or None.
        mask: [B, T], or None.
        values: those of the first layer, [B, T, heads, D], for `layer.value_residual`; None for
            models without it.
    """

    segment_ids: Array | None
    mask: Array | None
    values: Array | None = None

    @property
    def of_tokens(self) -> dict[str, Array | None]:
        """What every mixer is given."""
        return {"segment_ids": self.segment_ids, "mask": self.mask}


NO_INPUTS = BlockInputs(None, None)


class Block(nnx.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)) if there is a channel mixer; see `BlockConfig`.

    Args:
        config: of the model.
        letter: of the pattern.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, letter: str, rngs: nnx.Rngs):
        block = config.block(letter)
        norm = functools.partial(
            NORMS[config.norm_kind], (config.width,), ("embed",), config.norm_eps
        )
        self.mixer_norm = norm()
        self.loops = block.mixer.loops
        self.shares_values = block.mixer.shares_values(block)
        self.after = block.norm == "post"
        self.mixer = block.build(config.width, config.heads, rngs)
        self.mlp = block.channel.build(config.width, config.mlp_ratio, rngs)
        self.channel_state = block.channel.has_state
        self.mlp_norm = None if self.mlp is None else norm()

    def init_state(self, batch: int, dtype) -> Any:
        """The initial state: `BlockState`, or that of the mixer alone."""
        state = self.mixer.init_state(batch, dtype)
        if not self.channel_state or self.mlp is None:
            return state
        return BlockState(state, self.mlp.init_state(batch, dtype))

    def first_values(self, x: Array, state: Any, inputs: BlockInputs) -> Array:
        """`BlockInputs.values` of a model whose first block this is, for its tokens x."""
        x = x if self.after else self.mixer_norm(x)
        return self.mixer.first_values(x, state=mixer_state(state), **inputs.of_tokens)

    def __call__(self, x: Array, state: Any, inputs: BlockInputs, depth: Array, **call):
        """Apply the block to x [B, T, width]; see `MemoryLayer.__call__`."""
        # What a rematerialised block keeps is split further than what it computes with.
        x = constrain(constrain(x, ROWS, KEPT_TIME, None), ROWS, TIME, None)
        y = x if self.after else self.mixer_norm(x)
        y, after, measured = self._mixed(y, mixer_state(state), inputs, depth, **call)
        x = x + (self.mixer_norm(y) if self.after else y)
        if self.mlp is not None and self.mlp_norm is not None:
            graphdef, weights = nnx.split(self.mlp)
            weights, x = before_those_below(weights, x)
            y = x if self.after else self.mlp_norm(x)
            mlp = nnx.merge(graphdef, weights)
            if self.channel_state:
                before = None if state is None else state.channel
                y, channel = mlp(y, state=before, **inputs.of_tokens)
                after = BlockState(after, channel)
            else:
                y = mlp(y)
            x = x + (self.mlp_norm(y) if self.after else y)
        return constrain(x, ROWS, KEPT_TIME, None), after, measured

    def _mixed(self, x: Array, state: Any, inputs: BlockInputs, depth: Array, *, health, **call):
        if health or not self.loops:
            options = {**inputs.of_tokens, "health": health, **call}
            if self.shares_values:
                options["values"] = inputs.values
            return self.mixer(x, state=state, depth=depth, **options)
        graphdef, weights = nnx.split(self.mixer)

        def run(weights: Any, x: Array, state: Any, inputs: BlockInputs):
            mixer = nnx.merge(graphdef, weights[0])
            return mixer(x, state=state, depth=weights[1], **inputs.of_tokens, **call)

        return over_rows(run, (weights, depth), (x, state, inputs._replace(values=None)))


class Group(nnx.Module):
    """The blocks of one pass through the pattern."""

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        remat.check(config.remat)
        self.remat: remat.Remat = config.remat
        self.order = tuple(f"{letter}{n}" for n, letter in enumerate(config.letters))
        self.blocks = nnx.Dict({name: Block(config, name[0], rngs) for name in self.order})

    def init_state(self, batch: int, dtype) -> tuple[Any, ...]:
        """The initial states of the blocks."""
        return tuple(self.blocks[name].init_state(batch, dtype) for name in self.order)

    def __call__(
        self, x: Array, states: tuple[Any, ...] | None, inputs: BlockInputs, depths: Array, **call
    ) -> tuple[Array, tuple[Any, ...], tuple[Health | None, ...]]:
        """Apply the blocks in order; `depths` [len(pattern)] are their relative depths."""
        after, measures = [], []

        def run(block: Block, x: Array, state: Any, inputs: BlockInputs, depth: Array):
            return block(x, state, inputs, depth, **call)

        body = remat.rematerialised(run, self.remat)
        for n, name in enumerate(self.order):
            state = None if states is None else states[n]
            x, state, measured = body(self.blocks[name], x, state, inputs, depths[n])
            after.append(state)
            measures.append(measured)
        return x, tuple(after), tuple(measures)


def depths(config: LanguageModelConfig) -> Array:
    """The relative depth of each layer, from 0 to 1, [groups, len(pattern)]."""
    at = jnp.arange(config.layers) / max(1, config.layers - 1)
    return at.reshape(-1, len(config.letters))
