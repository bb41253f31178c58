"""Attention: the kv memory, whose write is to keep the token and whose read is a softmax over it.

The only state in miras that grows: by a key and a value a token, up to the memory's window. Where
queries, keys and segments come from is the layer's business.
"""

import dataclasses
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from miras.array_typing import Array, Weights
from miras.attention.dispatch import fused
from miras.attention.softmax import attend, blocks_of, in_blocks, in_front
from miras.backends.base import ScanInputs, ScanResult
from miras.config import require
from miras.engine.masking import compact, take_tokens
from miras.memory import TokenCache
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

T = TypeVar("T")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVState:
    """The tokens that B rows of K heads keep, in L places. A pytree.

    With a window w there are w - 1 places, however long the text. Without one, each call adds as
    many places as it has tokens, unless `reserve` has made room: then places are filled in turn and
    shapes stay as they are.

    Attributes:
        k: [B, L, K, Dk].
        v: [B, L, K, Dv].
        visible: [B, L], whether a place holds a token that queries may see.
        segment: [B, L], the number of the token's segment, counted up from 0.
        length: [B], places filled so far. Later places, which only rows with masked tokens
            have, are empty.
        last_id: [B], segment id of the last token.
        last_segment: [B], its number.
        grows: whether it keeps all tokens, as without a window; static.
        reserved: whether there is room for the next call; static.
    """

    k: Array
    v: Array
    visible: Array
    segment: Array
    length: Array
    last_id: Array
    last_segment: Array
    grows: bool = dataclasses.field(default=False, metadata={"static": True})
    reserved: bool = dataclasses.field(default=False, metadata={"static": True})


def initial_kv_state(
    cache: TokenCache, batch: int, heads: int, dk: int, dv: int, dtype=jnp.float32
) -> KVState:
    """The state before the first token: no places, or a window's."""
    places = 0 if cache.window is None else cache.window - 1
    return KVState(
        k=jnp.zeros((batch, places, heads, dk), dtype),
        v=jnp.zeros((batch, places, heads, dv), dtype),
        visible=jnp.zeros((batch, places), bool),
        segment=jnp.zeros((batch, places), jnp.int32),
        length=jnp.full(batch, places, jnp.int32),
        last_id=jnp.zeros(batch, jnp.int32),
        last_segment=jnp.zeros(batch, jnp.int32),
        grows=cache.window is None,
    )


def reserve(tree: T, tokens: int) -> T:
    """Every `KVState` in a tree that grows with room for more tokens, so that calls need not.

    Places grow to a power of two. Leaves may carry leading axes, as layers under one scan do.
    """

    def grow(state: Any) -> Any:
        if not isinstance(state, KVState) or not state.grows:
            return state
        places = state.visible.shape[-1]
        needed = int(jnp.max(state.length)) + tokens
        return widened(
            state, places if needed <= places else 2 ** max(8, (needed - 1).bit_length())
        )

    return jax.tree.map(grow, tree, is_leaf=lambda x: isinstance(x, KVState))


def widened(state: KVState, places: int) -> KVState:
    """The state with so many places, which are filled in turn. Leaves may carry leading axes."""
    extra = places - state.visible.shape[-1]

    def pad(x: Array, trailing: int) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[x.ndim - trailing - 1] = (0, extra)
        return jnp.pad(x, widths)

    return dataclasses.replace(
        state,
        k=pad(state.k, 2),
        v=pad(state.v, 2),
        visible=pad(state.visible, 0),
        segment=pad(state.segment, 0),
        reserved=True,
    )


def check_room(state: KVState, tokens: int) -> None:
    """Raise `ConfigError` where reserved places are too few, if their number is known."""
    if not state.reserved or isinstance(state.length, Tracer):
        return
    room = state.visible.shape[-1] - int(jnp.max(state.length))
    require(
        tokens <= room,
        f"state has room for {room} more tokens, not {tokens}: call reserve(state, ...) first.",
    )


def attend_to_cache(rule: Rule, inputs: ScanInputs, options: ScanOptions) -> ScanResult:
    """All tokens of a call at once, in a fused kernel where there is one.

    Backend "xla" takes jax's own attention; "reference" computes the softmax as written. The inner
    loss is 0.
    """
    cache = rule.memory.token_cache
    assert cache is not None
    q, k, v, state = inputs.q, inputs.k, inputs.v, inputs.state
    as_written = options.backend == "reference"
    may_fuse = state is None and inputs.mask is None and options.backend not in ("reference", "xla")
    batch, length = q.shape[:2]
    if state is None:
        state = initial_kv_state(cache, batch, k.shape[2], k.shape[3], v.shape[-1], k.dtype)
    assert isinstance(state, KVState)
    check_room(state, length)
    ids, mask = inputs.segment_ids, inputs.mask
    return ScanResult(*_attend(cache, inputs.W0, q, k, v, state, ids, mask, as_written, may_fuse))


@functools.partial(jax.jit, static_argnums=(0, 8, 9))
def _attend(
    cache: TokenCache, W0: Weights, q, k, v, state: KVState, segment_ids, mask, as_written, may_fuse
):
    batch, length, heads, dk = q.shape
    rows, ids = None, segment_ids
    if mask is not None:
        rows = compact(mask)
        q, k, v = (rows.packed(x) for x in (q, k, v))
        ids = rows.ids(segment_ids, state.last_id)
    elif ids is None:
        ids = jnp.broadcast_to(state.last_id[:, None], (batch, length))
    before = jnp.concatenate([state.last_id[:, None], ids[:, :-1]], axis=1)
    segment = state.last_segment[:, None] + jnp.cumsum(ids != before, axis=1).astype(jnp.int32)
    seen = jnp.ones((batch, length), bool) if rows is None else rows.present
    new = {"k": k.astype(state.k.dtype), "v": v.astype(state.v.dtype)}
    new |= {"visible": seen, "segment": segment}
    begin = state.length if state.reserved else jnp.full(batch, state.visible.shape[1])
    kept = {name: _kept(getattr(state, name), x, begin, state.reserved) for name, x in new.items()}

    scale = dk**-0.5 if cache.scale is None else cache.scale
    window = cache.window
    own = None if segment_ids is None else segment
    front = (W0["k"], W0["v"]) if cache.persistent else None
    y = fused(q, k, v, front, window=window, segment=own, scale=scale) if may_fuse else None
    if y is None and (as_written or window is None or length < 2 * window):
        place = begin[:, None] + jnp.arange(length)
        y = _direct(cache, W0, q, kept, place, segment, scale, as_written)
    elif y is None:
        y = _banded(cache, W0, q, kept, segment, scale)

    if window is not None and rows is not None:
        last = rows.count[:, None] + jnp.arange(window - 1)  # after those that were kept
        kept = {name: take_tokens(x, last) for name, x in kept.items()}
    elif window is not None:
        kept = {name: x[:, x.shape[1] - (window - 1) :] for name, x in kept.items()}
    if rows is not None and window is None:
        filled = begin + rows.count
    else:
        filled = begin + length if state.reserved else jnp.full(batch, kept["visible"].shape[1])
    if rows is not None:
        y = rows.spread(y)
    end = KVState(
        **kept,
        length=filled.astype(jnp.int32),
        last_id=ids[:, -1].astype(jnp.int32),
        last_segment=segment[:, -1],
        grows=state.grows,
        reserved=state.reserved,
    )
    return y, end, jnp.zeros((batch, length, heads), jnp.promote_types(jnp.float32, q.dtype))


def _kept(kept: Array, new: Array, begin: Array, reserved: bool) -> Array:
    """Places [B, L, ...] with T new ones at `begin` of each row, or after all."""
    if not reserved:
        return jnp.concatenate([kept, new], axis=1)
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
    return jax.vmap(put)(kept, new, begin)


def _direct(cache: TokenCache, W0: Weights, q, kept, place, segment, scale, as_written) -> Array:
    """All queries, each at its place [B, T], against all keys."""
    other = jnp.arange(kept["visible"].shape[1])
    sees = other <= place[:, :, None]
    if cache.window is not None:
        sees &= other > place[:, :, None] - cache.window
    return _among(cache, W0, q, kept, sees, segment, scale, as_written)


def _banded(cache: TokenCache, W0: Weights, q, kept, segment, scale) -> Array:
    """A window of w in blocks of w tokens: query t of a block sees keys t to t + w - 1 of two."""
    window = cache.window
    assert window is not None
    batch, length = segment.shape
    count = blocks_of(length, window)
    q = in_blocks(q, window, pairs=False, count=count)
    own = in_blocks(segment, window, pairs=False, count=count)
    pairs = {name: in_blocks(x, window, pairs=True, count=count) for name, x in kept.items()}
    token, key = jnp.arange(window)[:, None], jnp.arange(2 * window)[None, :]
    sees = ((token <= key) & (key < token + window))[None]
    y = _among(cache, W0, q, pairs, sees, own, scale, as_written=False)
    return y.reshape(batch, count * window, *y.shape[2:])[:, :length]


def _among(cache: TokenCache, W0: Weights, q, kept, sees, segment, scale, as_written) -> Array:
    """Among kept tokens those at places that `sees` [.., T, S] allows, visible and of one segment.

    Persistent tokens stand in front of all.
    """
    sees = sees & (segment[:, :, None] == kept["segment"][:, None, :])
    sees &= kept["visible"][:, None, :]
    keys, values = kept["k"].astype(q.dtype), kept["v"].astype(q.dtype)
    if cache.persistent:
        keys, values, sees = in_front(keys, values, sees, W0["k"], W0["v"])
    return attend(q, keys, values, sees, scale, as_written=as_written)
