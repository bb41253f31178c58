"""Blocks: a token mixer and a SwiGLU, and the group of blocks that a pattern repeats."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers import Health, MemoryConfig, MemoryLayer, RMSNorm, SwiGLU
from miras.models.config import LanguageModelConfig
from miras.models.mac import MAC
from miras.models.titans import MAG, MAL

TITANS = {"mac": MAC, "mag": MAG, "mal": MAL}


class BlockInputs(NamedTuple):
    """Inputs of every block besides the residual stream: segment ids and mask [B, T], or None."""

    segment_ids: Array | None
    mask: Array | None


def mixer(config: LanguageModelConfig, letter: str, rngs: nnx.Rngs) -> Any:
    """The token mixer of a letter of the pattern.

    All have `init_state(batch, dtype)` and the call signature of `MemoryLayer`.
    """
    widths = config.width, config.heads
    attention = config.attention
    if letter == "M" and config.architecture in TITANS:
        titans = TITANS[config.architecture]
        return titans(config.memory, config.layer, attention, *widths, rngs)
    if letter == "M":
        return MemoryLayer(config.memory, *widths, config=config.layer, rngs=rngs)
    rule = attention.rule(windowed=letter == "S")
    memory = MemoryConfig(rule, backend=config.backend)
    return MemoryLayer(memory, *widths, config=attention.layer, rngs=rngs)


class Block(nnx.Module):
    """x + mixer(norm(x)), then x + SwiGLU(norm(x)).

    Args:
        config: of the model.
        letter: of the pattern.
        rngs: stream `params`.
    """

    def __init__(self, config: LanguageModelConfig, letter: str, rngs: nnx.Rngs):
        self.mixer_norm = RMSNorm((config.width,), ("embed",))
        self.mixer = mixer(config, letter, rngs)
        self.mlp_norm = RMSNorm((config.width,), ("embed",))
        self.mlp = SwiGLU(config.width, config.mlp_width, rngs)

    def __call__(self, x: Array, state: Any, inputs: BlockInputs, depth: Array, **call):
        """Apply the block to x [B, T, width]; see `MemoryLayer.__call__`."""
        y, state, measured = self.mixer(
            self.mixer_norm(x), state=state, depth=depth, **inputs._asdict(), **call
        )
        x = x + y
        return x + self.mlp(self.mlp_norm(x)), state, measured


class Group(nnx.Module):
    """The blocks of one pass through the pattern."""

    def __init__(self, config: LanguageModelConfig, rngs: nnx.Rngs):
        self.remat = config.remat
        self.order = tuple(f"{letter}{n}" for n, letter in enumerate(config.letters))
        self.blocks = nnx.Dict({name: Block(config, name[0], rngs) for name in self.order})

    def init_state(self, batch: int, dtype) -> tuple[Any, ...]:
        """The initial states of the blocks."""
        return tuple(self.blocks[name].mixer.init_state(batch, dtype) for name in self.order)

    def __call__(
        self, x: Array, states: tuple[Any, ...] | None, inputs: BlockInputs, depths: Array, **call
    ) -> tuple[Array, tuple[Any, ...], tuple[Health | None, ...]]:
        """Apply the blocks in order; `depths` [len(pattern)] are their relative depths."""
        after, measures = [], []

        def run(block: Block, x: Array, state: Any, inputs: BlockInputs, depth: Array):
            return block(x, state, inputs, depth, **call)

        body = nnx.remat(run) if self.remat else run
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
