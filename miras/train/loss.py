"""Cross entropy of the head's logits, which never exist for all tokens at once.

With the features x_t of token t, the head's rows w_j and the logits l_tj = <w_j, x_t>,

    log Z_t = log sum_j exp(l_tj),        nats_t = log Z_t - l_{t, target(t)},
    objective = sum_t nats_t + z_loss sum_t (log Z_t)^2            (t over targets, not masked ones)

where z_loss is PaLM's auxiliary loss (2204.02311, section 5). The logits of a chunk of tokens are
made, used and dropped in one turn of a loop, which also makes the gradient, since it is known
without the rest of the backward pass:

    d objective / d l_tj = (1 + 2 z_loss log Z_t) exp(l_tj - log Z_t) - [j = target(t)]

So the loss needs memory for one chunk, and its gradient costs three products with the head: the
logits are not computed a second time.

On a mesh (`jax.set_mesh`) every device has its own rows (axes data and fsdp), its own part of each
row (seq) and its own part of the vocabulary (tensor): chunks are cut from a device's own tokens,
and devices exchange only sums over the vocabulary, one number per token. The gradient of the head
is summed over devices once, after the loop.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from miras.array_typing import Array
from miras.parallel.shard import automatic_axes
from miras.parallel.table import TableSplit, split_table, sum_over, sum_over_tokens

_LOGITS = 2**25  # 128 MiB of float32
_TOKENS = 1024  # fewer make the product with a large head bound by memory traffic


class LossOptions(NamedTuple):
    """How the loss is computed, a static argument.

    Attributes:
        chunk: most tokens of a device whose logits exist at once; None chooses it, see
            `chunks_of`.
        z_loss: coefficient of the squared log partition function.
        reduce: dtype in which the head's gradient is summed over devices.
    """

    chunk: int | None = None
    z_loss: float = 0.0
    reduce: str = "float32"


PLAIN_LOSS = LossOptions()


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    x: Array, head: Array, targets: Array, mask: Array, options: LossOptions = PLAIN_LOSS
) -> tuple[Array, Array]:
    """The objective and the negative log likelihood, both summed over the targets.

    Only the objective has a gradient; that of the negative log likelihood is dropped.

    Args:
        x: features [B, T, width], float; the products with the head are in this dtype.
        head: one row per token of the vocabulary, [V, width], float32.
        targets: [B, T] int, in [0, V).
        mask: [B, T] bool, which tokens have a target.
        options: see `LossOptions`.

    Returns:
        objective and nats, scalars, float32 (float64 if x is).
    """
    return _over_mesh(_sums, x, head, targets, mask, options)


def _forward(x, head, targets, mask, options):
    *sums, dx, dhead = _over_mesh(_gradients, x, head, targets, mask, options)
    return tuple(sums), (dx, dhead, head)


def _backward(options, residuals, cotangents):
    del options
    dx, dhead, head = residuals
    scale = cotangents[0]
    # One multiplication by a scalar, in the precision of the sum.
    dx = (dx * scale).astype(dx.dtype)
    return dx, (dhead * scale).astype(head.dtype), None, None


cross_entropy.defvjp(_forward, _backward)


def chunks_of(tokens: int, vocab: int, chunk: int | None) -> int:
    """The number of chunks of equal size into which a device cuts its tokens.

    Args:
        tokens: of the device.
        vocab: tokens of the vocabulary that the device has.
        chunk: most tokens of a chunk; by default 1024, or as many as have 2**25 logits.
    """
    return math.ceil(tokens / (chunk or max(_TOKENS, _LOGITS // vocab)))


def _over_mesh(run: Callable[..., Any], x, head, targets, mask, options: LossOptions) -> Any:
    """`_sums` or `_gradients` of each device's own tokens and vocabulary."""
    head = head.astype(x.dtype)
    sizes = automatic_axes()
    if math.prod(sizes.values()) == 1:
        return run(x, head, targets, mask, options, TableSplit())
    split = split_table(x.shape[:2], head.shape, sizes)
    rows = PartitionSpec(split.rows, split.time)
    scalars = PartitionSpec(), PartitionSpec()
    gradients = PartitionSpec(split.rows, split.time), PartitionSpec(split.vocab, split.width)
    return jax.shard_map(
        functools.partial(run, options=options, split=split),
        in_specs=(rows, PartitionSpec(split.vocab), rows, rows),
        out_specs=scalars if run is _sums else (*scalars, *gradients),
        axis_names=set(sizes),
        check_vma=False,  # every sum over devices is written out below
    )(x, head, targets, mask)


class _Token(NamedTuple):
    """Of each token [N]: nats, log Z, and over the device's vocabulary [N, V] logits and hits."""

    nats: Array
    log_z: Array
    logits: Array
    hit: Array


def _tokens(x: Array, head: Array, targets: Array, axes: tuple[str, ...]) -> _Token:
    """Features x [N, width] and the device's rows of the head [V, width]."""
    dtype = jnp.promote_types(jnp.float32, x.dtype)
    logits = jax.lax.dot_general(x, head, (((1,), (1,)), ((), ())), preferred_element_type=dtype)
    first = jax.lax.axis_index(axes) * head.shape[0] if axes else 0
    # A comparison and not a gather, which would need the logits of the whole vocabulary.
    hit = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 1) == (targets - first)[:, None]
    over = functools.partial(jax.lax.psum, axis_name=axes) if axes else lambda x: x
    top = jnp.max(logits, axis=1)
    top = jax.lax.pmax(top, axes) if axes else top
    log_z = top + jnp.log(over(jnp.sum(jnp.exp(logits - top[:, None]), axis=1)))
    return _Token(log_z - over(jnp.sum(logits, axis=1, where=hit)), log_z, logits, hit)


def _sum_of(found: _Token, mask: Array, z_loss: float) -> Array:
    """The objective and the nats of tokens, [2]."""
    nats = jnp.sum(found.nats, where=mask)
    square = z_loss * jnp.sum(jnp.square(found.log_z), where=mask) if z_loss else 0
    return jnp.stack([nats + square, nats])


def _sums(x, head, targets, mask, options: LossOptions, split: TableSplit):
    """`cross_entropy` of a device's tokens [B, T], summed over devices."""

    def add(total: Array, chunk):
        x, targets, mask = chunk
        found = _tokens(x, head, targets, split.vocab)
        return total + _sum_of(found, mask, options.z_loss), None

    chunks = _cut(options.chunk, head.shape[0], x, targets, mask)
    start = jnp.zeros(2, jnp.promote_types(jnp.float32, x.dtype))
    total = _loop(add, start, chunks)[0]
    total = sum_over(total, split.owners)
    return total[0], total[1]


def _gradients(x, head, targets, mask, options: LossOptions, split: TableSplit):
    """As `_sums`, with the gradients of the objective for x, as x, and head, [V, width]."""
    dtype = jnp.promote_types(jnp.float32, x.dtype)

    def add(carry: tuple[Array, Array], chunk):
        total, dhead = carry
        x, targets, mask = chunk
        found = _tokens(x, head, targets, split.vocab)
        scale = jnp.where(mask, 1 + 2 * options.z_loss * found.log_z, 0)[:, None]
        p = jnp.exp(found.logits - found.log_z[:, None])
        gradient = jnp.where(mask[:, None], scale * p - found.hit, 0).astype(x.dtype)
        dot = functools.partial(jax.lax.dot_general, gradient, preferred_element_type=dtype)
        dx = dot(head, (((1,), (0,)), ((), ()))).astype(x.dtype)
        dhead += dot(x, (((0,), (0,)), ((), ())))
        return (total + _sum_of(found, mask, options.z_loss), dhead), dx

    chunks = _cut(options.chunk, head.shape[0], x, targets, mask)
    start = jnp.zeros(2, dtype), jnp.zeros(head.shape, dtype)
    (total, dhead), dx = _loop(add, start, chunks)
    dx = dx.reshape(-1, x.shape[-1])[: math.prod(x.shape[:-1])].reshape(x.shape)
    total = sum_over(total, split.owners)
    dhead = sum_over_tokens(dhead, split, options.reduce)
    return total[0], total[1], sum_over(dx, split.vocab), dhead


def _cut(chunk: int | None, vocab: int, x: Array, targets: Array, mask: Array):
    """x, targets and mask as chunks [n, tokens, ...]; tokens that fill the last are masked."""
    tokens = math.prod(targets.shape)
    number = chunks_of(tokens, vocab, chunk)
    size = math.ceil(tokens / number)

    def cut(array: Array) -> Array:
        array = array.reshape(tokens, *array.shape[2:])
        fill = [(0, number * size - tokens)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, fill).reshape(number, size, *array.shape[1:])

    return cut(x), cut(targets), cut(mask)


def _loop(body: Callable[..., Any], start: Any, chunks: Any) -> Any:
    """`lax.scan`, without a loop for one chunk."""
    if chunks[1].shape[0] > 1:
        return jax.lax.scan(body, start, chunks)
    carry, out = body(start, jax.tree.map(lambda x: x[0], chunks))
    return carry, out
