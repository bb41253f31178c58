"""Memories that project: their snapshots, their reads, and the writes of a chunk of tokens."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array, Weights
from miras.backends.base import Alignment, ScanInputs
from miras.engine.state import State, initial_state, made_by
from miras.engine.trajectory import primal
from miras.layers.fast_weights import FastWeights, MemoryConfig
from miras.layers.keys import Associations
from miras.layers.norm import l2_normalise
from miras.layers.param import param
from miras.mixers.projecting import Projecting
from miras.mixers.segment_writes import choose
from miras.rule.rule import Rule
from miras.sequence.read import answer_of_weights
from miras.sequence.scan import scan_with_loss


class TileTokens(NamedTuple):
    """Tokens before memories have projected them, [B, T, ...].

    Attributes:
        q: queries, [B, T, H, D].
        u: what memories read, of norm 1, [B, T, H, D]; None without memories that project.
        static: the static ones among k and v.
        gates: as static projections give them.
    """

    q: Array
    u: Array | None
    static: dict[str, Array]
    gates: dict[str, Array]


class ProjectionMemories(nnx.Module):
    """The memories M_k, M_v, M_eta and M_alpha, or some of them, side by side as heads.

    The memories of one head lie next to each other, [M_k, M_v, ... of head 0, M_k, ... of head 1],
    so that devices that split the heads exchange nothing to write and read them. In parameters and
    in the state between calls, all heads of M_k come first (`by_memory`).

    Args:
        memory: the rule and the options of the scan.
        mixer: which projections are memories, and whether they make their targets.
        span: tokens of their chunk.
        head: width of a head.
        heads: H of each memory.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        mixer: Projecting,
        span: int,
        head: int,
        heads: int,
        rngs: nnx.Rngs,
    ):
        self.rule, self.names, self.self_values = memory.rule, mixer.memories, mixer.self_values
        self.options, self.head = memory.options.replace(chunk=span), head
        self.precision, self.made = memory.precision, made_by(memory.rule, span, memory.exact)
        key, all_heads = rngs.params(), heads * len(self.names)
        raw = self.rule.init_raw(key, head, head, all_heads)
        raw = {n: _started(jax.random.fold_in(key, i), raw[n]) for i, n in enumerate(raw)}
        self.initial = nnx.Dict(
            {n: param(w, ("heads",) + (None,) * (w.ndim - 1)) for n, w in raw.items()}
        )

    def initial_weights(self) -> Weights:
        """The learned starts, primal, leaves [H * memories, ...]."""
        raw = {n: self._by_head(leaf[...], 0) for n, leaf in self.initial.items()}
        return self.rule.constrain(raw)

    def init_state(self, batch: int, dtype) -> State:
        """The initial state; `dtype` is that of the tokens."""
        kept = self.precision.kept(jnp.promote_types(jnp.float32, dtype))
        widths, refine = (self.head, self.head), min(self.options.refine, self.options.chunk)
        W0 = self.initial_weights()
        return initial_state(
            self.rule, W0, batch, *widths, refine=refine, dtype=kept, made=self.made
        )

    def snapshot(self, state: State) -> Weights:
        """The weights before the current chunk, primal, leaves [B, H * memories, ...]."""
        return snapshot(self.rule, state)

    def by_head(self, state: State) -> State:
        """A state of `by_memory` with the memories of a head next to each other."""
        moved = jax.tree.map(lambda x: self._by_head(x, 1), state.of_heads())
        return moved.replace(position=state.position, segment=state.segment, made=state.made)

    def by_memory(self, state: State) -> State:
        """A state with all heads of a memory next to each other, as it is kept between calls."""
        moved = jax.tree.map(lambda x: _swapped(x, 1, -1, len(self.names)), state.of_heads())
        return moved.replace(position=state.position, segment=state.segment, made=state.made)

    def read(self, W: Weights, u: Array | None) -> dict[str, Array]:
        """Each memory's answer to u [B, T, H, D], by its name."""
        assert u is not None
        answers = answer_of_weights(self.rule, self.initial_weights(), self._each(u), W, {})
        each = answers.reshape(*u.shape[:3], len(self.names), -1)
        return {name: each[..., n, :] for n, name in enumerate(self.names)}

    def write(
        self,
        state: State,
        W: Weights,
        k: Array | None,
        v: Array | None,
        gates: dict[str, Array],
        *,
        present: Array | None,
        sliced: bool,
    ) -> State:
        """The state after a run of tokens in one chunk, whose snapshot is W."""
        assert k is not None
        assert v is not None
        keys, values, W0 = self._each(k), self._each(v), self.initial_weights()
        if self.self_values:
            values = answer_of_weights(self.rule, W0, l2_normalise(values), W, {})
        each = {name: self._each(gate) for name, gate in gates.items()}
        inputs = ScanInputs(W0, keys, keys, values, each, state=state, mask=present)
        _, after, _ = scan_with_loss(self.rule, inputs, self.options, Alignment(sliced, sliced))
        return after

    def _each(self, x: Array) -> Array:
        """[B, T, H, ...] for every memory, [B, T, H * memories, ...]."""
        return jnp.repeat(x, len(self.names), axis=2)

    def _by_head(self, x: Array, axis: int) -> Array:
        return _swapped(x, axis, len(self.names), -1)


def snapshot(rule: Rule, state: State) -> Weights:
    """The weights before the current chunk of each row, primal, leaves [B, H, ...]."""
    now = jax.vmap(jax.vmap(lambda A: primal(rule, A)))(state.A)
    return choose(state.position == 0, now, state.R)


def in_chunks(
    fast: FastWeights,
    state: State,
    streams: Associations,
    gates: dict[str, Array],
    present: Array | None,
    *,
    sliced: bool,
    self_values: bool,
) -> tuple[State, tuple[Array, Array, Array]]:
    """Write and read a memory chunk by chunk, so that each sees its own targets.

    Args:
        fast: the memories.
        state: theirs.
        streams: of tokens [B, width, ...] that lie in slots by their position in chunks.
        gates: of the tokens.
        present: [B, width], which slots hold a token; None where all do.
        sliced: whether the first slot begins a chunk in every row.
        self_values: whether targets are the memory's answers to the values.

    Returns:
        The state, and y, the targets and the inner losses, [B, width, H, ...].
    """
    rule, chunk = fast.memory.rule, fast.memory.chunk
    width = streams.q.shape[1]

    def one(state: State, tile: tuple[Associations, dict[str, Array], Any]):
        streams, gates, present = tile
        v = streams.v
        if self_values:
            W = snapshot(rule, state)
            v = answer_of_weights(rule, fast.initial_weights(), l2_normalise(v), W, {})
        y, state, loss = fast.write_and_read(
            streams._replace(v=v),
            gates,
            mask=present,
            state=state,
            alignment=Alignment(sliced, sliced),
        )
        return state, (y, v, loss)

    if width <= chunk:
        return one(state, (streams, gates, present))
    count = math.ceil(width / chunk)
    if count * chunk > width and present is None:
        present = jnp.ones(streams.q.shape[:2], bool)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, count * chunk - width)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(x.shape[0], count, chunk, *x.shape[2:]), 1, 0)

    state, found = jax.lax.scan(one, state, jax.tree.map(cut, (streams, gates, present)))

    def whole(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :width]

    return state, jax.tree.map(whole, found)


def _swapped(x: Array, axis: int, rows: int, columns: int) -> Array:
    """x, whose axis is a matrix [rows, columns] row by row, with that axis column by column."""
    matrix = x.reshape(*x.shape[:axis], rows, columns, *x.shape[axis + 1 :])
    return jnp.swapaxes(matrix, axis, axis + 1).reshape(x.shape)


def _started(key: Array, leaf: Array) -> Array:
    """The leaf [H, in, ...], or one of variance 1 where it is all zero and a matrix."""
    if leaf.ndim < 3:
        return leaf
    drawn = jax.random.normal(key, leaf.shape, leaf.dtype)
    return jnp.where(jnp.any(leaf != 0), leaf, drawn)
