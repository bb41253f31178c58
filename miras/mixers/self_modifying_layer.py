"""SelfModifyingLayer: the layer of `miras.mixers.self_modifying`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.engine.layout import positions, tiles_needed
from miras.engine.masking import compact, where
from miras.engine.state import State
from miras.layers.config import LayerConfig
from miras.layers.conv import CausalConv, ConvState
from miras.layers.fast_weights import (
    FastWeights,
    Health,
    MemoryCall,
    MemoryConfig,
    last_segment,
    segments_of,
    with_output,
)
from miras.layers.keys import Associations
from miras.layers.norm import RMSNorm, l2_normalise
from miras.layers.param import LinearGeneral
from miras.layers.projections import Projections, flat
from miras.mixers.projecting import Projecting
from miras.mixers.projection_memories import ProjectionMemories, TileTokens, in_chunks
from miras.mixers.segment_writes import choose
from miras.mixers.segments import lay_out, tiles_at_most
from miras.parts.gate import Role
from miras.sequence.arrays import check_float


class SelfModifyingState(NamedTuple):
    """The state between calls.

    Attributes:
        memory: of M_mem.
        projections: of the other memories, side by side as heads; None without.
        position: tokens read since the projections' chunk began, [B].
        conv: the last inputs of the convolution on static projections; None without one.
        inputs: the last inputs of the convolution on what memories read; None without one.
    """

    memory: State
    projections: State | None
    position: Array
    conv: ConvState | None
    inputs: ConvState | None


class Memories(NamedTuple):
    """The memories as they move from tile to tile."""

    memory: State
    projections: State | None


class SelfModifyingLayer(nnx.Module):
    """Memories that make k, v, eta and alpha, the memory that they write, and the output.

    Args:
        memory: the rule and the options of the scan.
        mixer: which projections are memories, and their chunk.
        width: of the tokens.
        heads: H, each of width / heads.
        config: of the layer.
        rngs: stream `params`.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        mixer: Projecting,
        width: int,
        heads: int,
        config: LayerConfig,
        rngs: nnx.Rngs,
    ):
        self.config, self.mixer, self.heads, head = config, mixer, heads, width // heads
        self.span = mixer.span(memory.chunk)
        self.fixed = tuple(name for name in ("k", "v") if name in mixer.static)
        self.qkv = Projections(config, 1 + len(self.fixed), width, heads, rngs)
        self.fast = FastWeights(memory, config, width, heads, rngs)
        made, convolved = bool(mixer.memories), bool(mixer.memories and config.conv)
        shape, axes = (heads, head), ("heads", None)
        self.made = (
            ProjectionMemories(memory, mixer, self.span, head, heads, rngs) if made else None
        )
        self.conv = CausalConv(shape, axes, config.conv, rngs) if convolved else None
        norm, gate = config.output_norm, config.output_gate
        self.norm = RMSNorm((heads, head), ("heads", None), eps=1e-3) if norm else None
        self.gate = LinearGeneral((width, width), ("embed", "heads"), rngs) if gate else None
        self.out = LinearGeneral((width, width), ("heads", "embed"), rngs)

    def init_state(self, batch: int, dtype=jnp.float32) -> SelfModifyingState:
        """The initial state; `dtype` is that of the tokens."""
        origin = self._origin(batch, dtype)
        return SelfModifyingState(
            memory=origin.memory,
            projections=self._kept(origin.projections),
            position=jnp.zeros(batch, jnp.int32),
            conv=self.qkv.init_state(batch, dtype),
            inputs=None if self.conv is None else self.conv.init_state(batch, dtype),
        )

    def _kept(self, projections: State | None) -> State | None:
        """The state of the other memories as it is kept between calls."""
        return (
            None if self.made is None or projections is None else self.made.by_memory(projections)
        )

    def _origin(self, batch: int, dtype) -> Memories:
        memory = self.fast.init_state(batch, dtype)
        assert isinstance(memory, State)
        return Memories(memory, None if self.made is None else self.made.init_state(batch, dtype))

    def __call__(
        self,
        x: Array,
        *,
        segment_ids: Array | None = None,
        mask: Array | None = None,
        state: SelfModifyingState | None = None,
        segments_at_chunks: bool = False,
        depth: Array | float = 0.0,
        health: bool = False,
    ) -> tuple[Array, SelfModifyingState, Health | None]:
        """As `MemoryLayer.__call__`."""
        del depth
        check_float("x", x.dtype)
        start = self.init_state(x.shape[0], x.dtype) if state is None else state
        rows = None
        sliced = state is None and (segment_ids is None or (segments_at_chunks and mask is None))
        if mask is not None:
            rows = compact(mask)
            x, mask = rows.packed(x), rows.present
            if segment_ids is not None:
                segment_ids = rows.ids(segment_ids, last_segment(start.memory, x))
        count = None if rows is None else rows.count
        ids = segments_of(segment_ids, start.memory, x)
        tokens, conv, inputs = self._tokens(x, ids, count, start)
        given = None if segment_ids is None else ids
        found, after, end = self._run(tokens, start, given, mask, state is None, sliced)
        y = flat(found.y if self.norm is None else self.norm(found.y))
        if self.gate is not None:
            y = y * jax.nn.silu(self.gate(x))
        y = self.out(y)
        measured = None
        if health:
            streams = Associations(tokens.q, found.k, found.v, None)
            call = MemoryCall(streams, found.gates, start.memory, after.memory, found.loss, mask)
            measured = with_output(self.fast.measured(health, call), y, mask)
        kept = self._kept(after.projections)
        after = SelfModifyingState(after.memory, kept, end, conv, inputs)
        return y if rows is None else rows.spread(y), after, measured

    def _tokens(
        self, x: Array, ids: Array, count: Array | None, start: SelfModifyingState
    ) -> tuple[TileTokens, ConvState | None, ConvState | None]:
        """What is static in a token, and what memories read of it; the convolutions' states."""
        norm = l2_normalise if self.config.qk_norm == "l2" else lambda z: z
        mixed, conv = self.qkv(x, ids, count, start.conv)
        static = {name: mixed[:, :, 1 + n] for n, name in enumerate(self.fixed)}
        if "k" in static:
            static["k"] = norm(static["k"])
        u, inputs = None, start.inputs
        if self.made is not None:
            u = x.reshape(*x.shape[:2], self.heads, -1)
            if self.conv is not None:
                assert inputs is not None
                u, inputs = self.conv(u, ids, count, inputs)
                u = jax.nn.silu(u) if self.config.activation == "silu" else u
            u = l2_normalise(u)
        return TileTokens(norm(mixed[:, :, 0]), u, static, self.fast.gates(x)), conv, inputs

    def _run(
        self,
        tokens: TileTokens,
        start: SelfModifyingState,
        ids: Array | None,
        mask: Array | None,
        new: bool,
        sliced: bool,
    ) -> tuple["Found", Memories, Array]:
        """In tiles of the projections' chunk where they hold the call, else token by token."""
        length = tokens.q.shape[1]
        projections = start.projections
        if self.made is not None and projections is not None:
            projections = self.made.by_head(projections)
        begin = Memories(start.memory, projections), start.position
        count = tiles_at_most(length, self.span, continued=not new)
        call = tokens, ids, mask

        def in_tiles(begin):
            return self._in_tiles(*call, begin, count, sliced=sliced)

        def by_token(begin):
            def one(begin, token):
                own, ids, mask = jax.tree.map(lambda z: z[:, None], token)
                found, *after = self._in_tiles(own, ids, mask, begin, 1, sliced=False)
                return tuple(after), jax.tree.map(lambda z: z[:, 0], found)

            by_time = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), call)
            after, found = jax.lax.scan(one, begin, by_time)
            return (jax.tree.map(lambda z: jnp.moveaxis(z, 0, 1), found), *after)

        if sliced or ids is None or length == 1:
            return in_tiles(begin)
        at = positions(ids, start.position, start.memory.segment, length, self.span, mask)
        fits = jnp.max(tiles_needed(at)) <= count
        return jax.lax.cond(fits, in_tiles, by_token, begin)

    def _in_tiles(
        self,
        tokens: TileTokens,
        ids: Array | None,
        mask: Array | None,
        begin: tuple[Memories, Array],
        count: int,
        *,
        sliced: bool,
    ) -> tuple["Found", Memories, Array]:
        """One tile after the other."""
        before, position = begin
        batch, length = tokens.q.shape[:2]
        at = positions(ids, position, before.memory.segment, length, self.span, mask)
        segments = lay_out(at, mask, self.span, count, sliced=sliced)
        origin = self._origin(batch, tokens.q.dtype)
        tiles = jax.tree.map(segments.tiles, tokens)

        def step(memories: Memories, tile):
            tokens, present, reset = tile
            memories = choose(reset, origin, memories)
            return self._tile(tokens, present, memories, sliced)

        if segments.count == 1:
            one = jax.tree.map(lambda z: z[:, 0], (tiles, segments.present, segments.resets))
            after, found = step(before, one)
            found = jax.tree.map(lambda z: z[:, None], found)
        else:
            by_tile = (tiles, segments.present, segments.resets)
            by_tile = jax.tree.map(lambda z: jnp.moveaxis(z, 1, 0), by_tile)
            after, found = jax.lax.scan(step, before, by_tile)
            found = jax.tree.map(lambda z: jnp.moveaxis(z, 0, 1), found)
        found = jax.tree.map(segments.tokens, found)
        if mask is not None:
            found = found._replace(y=where(mask, found.y, 0))
        after = choose(segments.read, after, before)
        memory = after.memory.replace(segment=segments.end_segment)
        return found, after._replace(memory=memory), segments.end_position

    def _tile(
        self, tokens: TileTokens, present: Array | None, memories: Memories, sliced: bool
    ) -> tuple[Memories, "Found"]:
        """The tokens of one chunk of the projections."""
        k, v, gates = tokens.static.get("k"), tokens.static.get("v"), tokens.gates
        projections = memories.projections
        if self.made is not None:
            assert projections is not None
            snapshot = self.made.snapshot(projections)
            made = self.made.read(snapshot, tokens.u)
            k = l2_normalise(made["k"]) if "k" in made else k
            v = made.get("v", v)
            gates = gates | self._made_gates(made)
            projections = self.made.write(
                projections, snapshot, k, v, gates, present=present, sliced=sliced
            )
        assert k is not None
        assert v is not None
        memory, found = in_chunks(
            self.fast,
            memories.memory,
            Associations(tokens.q, k, v, None),
            gates,
            present,
            sliced=sliced,
            self_values=self.mixer.self_values,
        )
        y, targets, loss = found
        return Memories(memory, projections), Found(y, k, targets, gates, loss)

    def _made_gates(self, made: dict[str, Array]) -> dict[str, Array]:
        """The gates that are read from the answers of memories."""
        gates: dict[str, Array] = {}
        roles: dict[str, Role] = {"eta": "rate", "alpha": "decay"}
        for name, role in roles.items():
            if name in made:
                of_answer = self.fast.gates(flat(made[name]))
                named = {gate.name for gate in self.fast.memory.rule.gates_of(role)}
                gates |= {n: gate for n, gate in of_answer.items() if n in named}
        return gates


class Found(NamedTuple):
    """What the tokens of a call made, [B, T, H, ...].

    Attributes:
        y: reads of M_mem.
        k: keys.
        v: targets of M_mem.
        gates: by name.
        loss: inner loss of M_mem.
    """

    y: Array
    k: Array
    v: Array
    gates: dict[str, Any]
    loss: Array
