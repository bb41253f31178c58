"""Branches: mixers on one input, and what makes one output of theirs."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.norm import RMSNorm
from miras.layers.param import LinearGeneral, param


class Branches(nnx.Module):
    """Mixers on one input; the state is the tuple of theirs. See `miras.mixers.parallel`.

    Args:
        built: the mixers.
        widths: of their inputs and outputs.
        combine: "sum", "mean", "gate" or "heads".
        measured: index of the mixer whose memory is measured.
        width: of the input.
        rngs: stream `params`.
    """

    def __init__(
        self,
        built: Sequence[Any],
        widths: Sequence[int],
        combine: str,
        measured: int,
        width: int,
        rngs: nnx.Rngs,
    ):
        self.combine, self.measured = combine, measured
        self.names = tuple(f"mixer{n}" for n in range(len(built)))
        self.mixers = nnx.Dict(dict(zip(self.names, built)))
        if combine == "heads":
            into = [LinearGeneral((width, w), ("embed", "heads"), rngs) for w in widths]
            self.into = nnx.Dict(dict(zip(self.names, into)))
            self.out = LinearGeneral((width, width), ("heads", "embed"), rngs)
        elif combine == "mean":
            norms = [RMSNorm((width,), ("embed",)) for _ in built]
            self.norms = nnx.Dict(dict(zip(self.names, norms)))
        elif combine == "gate":
            self.gate = param(jnp.zeros((width, len(built))), ("embed", None))

    def init_state(self, batch: int, dtype=jnp.float32) -> tuple[Any, ...]:
        """The initial states of the mixers."""
        return tuple(self.mixers[name].init_state(batch, dtype) for name in self.names)

    def __call__(
        self,
        x: Array,
        *,
        state: tuple[Any, ...] | None = None,
        health: Any = False,
        **call: Any,
    ) -> tuple[Array, tuple[Any, ...], Any]:
        """Apply all mixers to x [B, T, width]; see `MemoryLayer.__call__`."""
        outputs, states, measured = [], [], None
        for n, name in enumerate(self.names):
            before = None if state is None else state[n]
            own = self.into[name](x) if self.combine == "heads" else x
            asked = health if n == self.measured else False
            y, after, found = self.mixers[name](own, state=before, health=asked, **call)
            outputs.append(y)
            states.append(after)
            measured = found if n == self.measured else measured
        return self._combined(x, outputs), tuple(states), measured

    def _combined(self, x: Array, outputs: list[Array]) -> Array:
        if self.combine == "heads":
            return self.out(jnp.concatenate(outputs, axis=-1))
        if self.combine == "mean":
            normed = [self.norms[name](y) for name, y in zip(self.names, outputs)]
            return sum(normed[1:], normed[0]) / len(outputs)
        if self.combine == "sum":
            return sum(outputs[1:], outputs[0])
        wide = x.astype(jnp.promote_types(jnp.float32, x.dtype))
        logits = wide @ self.gate[...]
        weights = jax.nn.softmax(logits, axis=-1).astype(x.dtype)
        return jnp.einsum("btn,nbtd->btd", weights, jnp.stack(outputs))
