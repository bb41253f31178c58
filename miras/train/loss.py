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

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from miras.array_typing import Array
from miras.models.objective import PLAIN_LOSS, LossOptions
from miras.parallel.table import TableSplit, sum_over, sum_over_tokens
from miras.train.token_chunks import TokenLogits, cut, loop, over_tokens, restore, token_logits

_SCALARS = PartitionSpec(), PartitionSpec()


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
    x: Array, head: Array, targets: Array, mask: Array, options: LossOptions = PLAIN_LOSS
) -> tuple[Array, Array]:
    """The objective and the negative log likelihood, both summed over the targets.

    Only the objective has a gradient; that of the negative log likelihood is dropped. There is no
    forward-mode derivative: `jax.jvp` and `jax.jacfwd` raise a TypeError, as for every function
    whose gradient is written out (`jax.custom_vjp`).

    Args:
        x: features [B, T, width], float; the products with the head are in this dtype.
        head: one row per token of the vocabulary, [V, width], float32.
        targets: [B, T] int, in [0, V).
        mask: [B, T] bool, which tokens have a target.
        options: see `LossOptions`.

    Returns:
        objective and nats, scalars, float32 (float64 if x is).
    """
    run = functools.partial(_sums, options=options)
    sums = over_tokens(run, lambda _: _SCALARS, x, head, targets, mask)
    return sums[0], sums[1]


def _forward(x, head, targets, mask, options):
    run = functools.partial(_gradients, options=options)
    *sums, dx, dhead = over_tokens(run, _with_gradients, x, head, targets, mask)
    return tuple(sums), (dx, dhead, head)


def _backward(options, residuals, cotangents):
    del options
    dx, dhead, head = residuals
    scale = cotangents[0]
    # One multiplication by a scalar, in the precision of the sum.
    dx = (dx * scale).astype(dx.dtype)
    return dx, (dhead * scale).astype(head.dtype), None, None


cross_entropy.defvjp(_forward, _backward)


def _with_gradients(split: TableSplit) -> tuple[PartitionSpec, ...]:
    return *_SCALARS, PartitionSpec(split.rows, split.time), PartitionSpec(split.vocab, split.width)


def _sum_of(found: TokenLogits, mask: Array, z_loss: float) -> Array:
    """The objective and the nats of tokens, [2]."""
    nats = jnp.sum(found.nats, where=mask)
    square = z_loss * jnp.sum(jnp.square(found.log_z), where=mask) if z_loss else 0
    return jnp.stack([nats + square, nats])


def _sums(x, head, targets, mask, options: LossOptions, split: TableSplit):
    """`cross_entropy` of a device's tokens [B, T], summed over devices."""

    def add(total: Array, chunk):
        x, targets, mask = chunk
        found = token_logits(x, head, targets, split.vocab)
        return total + _sum_of(found, mask, options.z_loss), None

    chunks = cut(options.chunk, head.shape[0], x, targets, mask)
    start = jnp.zeros(2, jnp.promote_types(jnp.float32, x.dtype))
    total = loop(add, start, chunks)[0]
    total = sum_over(total, split.owners)
    return total[0], total[1]


def _gradients(x, head, targets, mask, options: LossOptions, split: TableSplit):
    """As `_sums`, with the gradients of the objective for x, as x, and head, [V, width]."""
    dtype = jnp.promote_types(jnp.float32, x.dtype)

    def add(carry: tuple[Array, Array], chunk):
        total, dhead = carry
        x, targets, mask = chunk
        found = token_logits(x, head, targets, split.vocab)
        scale = jnp.where(mask, 1 + 2 * options.z_loss * found.log_z, 0)[:, None]
        p = jnp.exp(found.logits - found.log_z[:, None])
        gradient = jnp.where(mask[:, None], scale * p - found.hit, 0).astype(x.dtype)
        dot = functools.partial(jax.lax.dot_general, gradient, preferred_element_type=dtype)
        dx = dot(head, (((1,), (0,)), ((), ()))).astype(x.dtype)
        dhead += dot(x, (((0,), (0,)), ((), ())))
        return (total + _sum_of(found, mask, options.z_loss), dhead), dx

    chunks = cut(options.chunk, head.shape[0], x, targets, mask)
    start = jnp.zeros(2, dtype), jnp.zeros(head.shape, dtype)
    (total, dhead), dx = loop(add, start, chunks)
    dx = restore(dx, x.shape)
    total = sum_over(total, split.owners)
    dhead = sum_over_tokens(dhead, split, options.reduce)
    return total[0], total[1], sum_over(dx, split.vocab), dhead
