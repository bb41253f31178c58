"""Keys: the associations (keys and values) of a token, from its projections."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.config import LayerConfig
from miras.layers.coupled_gates import middles
from miras.layers.head_sizes import head_sizes
from miras.layers.norm import GroupNorm, RMSNorm, l2_normalise
from miras.layers.param import LowRank, param
from miras.layers.projections import Grouped, Separate
from miras.layers.weight_gradients import spread
from miras.rule.rule import Rule


class Associations(NamedTuple):
    """The inputs of `miras.scan`; k and v may have an axis of associations, and q of reads."""

    q: Array
    k: Array
    v: Array
    k_write: Array | None


class Keys(nnx.Module):
    """From projections [B, T, streams, H, D] to a memory's queries, keys and values.

    Args:
        config: of the layer.
        rule: of the memory.
        width: of the tokens.
        heads: H.
        rngs: stream `params`.
    """

    def __init__(self, config: LayerConfig, rule: Rule, width: int, heads: int, rngs: nnx.Rngs):
        self.config, self.terms = config, config.terms(rule) or 1
        sizes = head_sizes(config, width, heads)
        head = sizes.key
        self.serves = heads // (config.key_heads or heads)  # heads of values for each of keys
        self.norms, self.biases = nnx.Dict(), nnx.Dict()
        for name, count in {"q": sizes.queries, "k": sizes.keys}.items():
            eps = config.qk_norm_eps
            if config.qk_norm == "rms":
                self.norms[name] = RMSNorm((count, head), ("heads", None), eps=eps)
            elif config.qk_norm == "rms_shared":
                self.norms[name] = RMSNorm((head,), (None,), eps=eps)
            elif config.qk_norm == "rms_all":
                self.norms[name] = GroupNorm(1, count, head, eps)
            if config.qk_bias:
                several = () if config.mimo == 1 else (config.mimo,)
                axes = (*[None] * len(several), "heads", None)
                self.biases[name] = param(jnp.ones((*several, count, head)), axes)
        if config.keys == "rwkv7":
            self.erase = param(jnp.ones((heads, head)), ("heads", None))  # the paper's xi
            self.mix = param(jnp.ones((heads, head)), ("heads", None))  # its alpha
            rank = config.rate_rank or config.gate_rank
            self.rate = LowRank(width, rank, (heads, head), ("heads", None), rngs)
            self.rate_bias = param(jnp.zeros((heads, head)), ("heads", None))
        if config.keys == "comba":
            self.shrink = param(jnp.ones(heads), ("heads",))  # initially p = sigmoid(1) k
            self.correction = param(jnp.full(heads, 0.02), ("heads",))
        if config.keys == "corrected":  # exp(D) evenly spaced in (0, 1), as the paper's is drawn
            self.log_correction = param(jnp.log(middles(heads)), ("heads",))

    @property
    def streams(self) -> int:
        """Number of projections of head width per token."""
        if self.config.mimo > 1:
            return 2 * self.config.mimo + 1
        return 1 + 2 * self.terms if self.config.keys == "product" else 3

    def __call__(self, mixed: Array | Grouped | Separate, x: Array) -> Associations:
        """Map projections [B, T, streams, H, D] of tokens x [B, T, width] to associations.

        With `mimo` the value is still that of all R; see `miras.layers.mimo`.
        Those of grouped heads are q [B, T, 1, H, D] and kv [B, T, 2, K, D], those of separate ones
        q, k and v [B, T, heads, D].
        """
        if isinstance(mixed, Separate):
            return self._one(*mixed, x)
        if isinstance(mixed, Grouped):
            k = self._normalised("k", mixed.kv[:, :, 0])
            return Associations(self.query(mixed.q[:, :, 0]), k, mixed.kv[:, :, 1], None)
        if self.config.mimo > 1:
            rank = self.config.mimo
            q, k = self.query(mixed[:, :, :rank]), self._normalised("k", mixed[:, :, rank:-1])
            return Associations(jnp.moveaxis(q, 2, 3), jnp.moveaxis(k, 2, 3), mixed[:, :, -1], None)
        if self.config.keys == "product":
            q = self.query(mixed[:, :, 0])
            k = jnp.moveaxis(self._normalised("k", mixed[:, :, 1 : 1 + self.terms]), 2, 3)
            return Associations(q, k, jnp.moveaxis(mixed[:, :, 1 + self.terms :], 2, 3), None)
        return self._one(mixed[:, :, 0], mixed[:, :, 1], mixed[:, :, 2], x)

    def _one(self, q: Array, k: Array, v: Array, x: Array) -> Associations:
        """The associations of one query, key and value a token."""
        if self.config.keys == "corrected":
            share = jnp.exp(self.log_correction[...])[:, None]
            q = q - spread(share, q) * k
        q, k = self.query(q), self._normalised("k", k)
        if self.serves > 1:
            q, k = (jnp.repeat(y, self.serves, axis=2) for y in (q, k))
        if self.config.keys == "rwkv7":
            return self._rwkv7(q, k, v, x)
        if self.config.keys == "comba":
            p = spread(jax.nn.sigmoid(self.shrink[...])[:, None], k) * k
            q = q - spread(self.correction[...][:, None], p) * p
            return Associations(q, p, v, k)
        return Associations(q, k, v, None)

    def query(self, q: Array) -> Array:
        """Normalise queries [B, T, H, D], or [B, T, R, H, D], and add their bias."""
        return self._normalised("q", q)

    def _normalised(self, name: str, x: Array) -> Array:
        """The norm and the bias of queries ("q") or keys ("k") [..., H, D]."""
        if self.config.qk_norm == "l2":
            x = l2_normalise(x)
        elif self.config.qk_norm is not None:
            x = self.norms[name](x)
        return x + spread(self.biases[name][...], x) if self.config.qk_bias else x

    def _rwkv7(self, q: Array, k: Array, v: Array, x: Array) -> Associations:
        """W + ... - (a * kap)^T (kap W) + ktilde^T v: two terms, one of value 0, one of key 0."""
        kap = l2_normalise(k * spread(self.erase[...], k), self.config.erase_eps)
        a = jax.nn.sigmoid(self.rate(x) + self.rate_bias[...]).astype(k.dtype)
        ktilde = k * (1 + (a - 1) * spread(self.mix[...], k))
        stack = lambda *parts: jnp.stack(parts, axis=3)  # noqa: E731
        zero = jnp.zeros_like(k)
        return Associations(
            q, stack(kap, zero), stack(jnp.zeros_like(v), v), stack(a * kap, ktilde)
        )
