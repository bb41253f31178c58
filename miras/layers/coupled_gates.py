"""Coupled gates: gates of a token that are computed from each other."""

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import param
from miras.parts.gate import Role
from miras.rule.rule import Rule

MIN_LOG_MOMENTUM = -2.0


class AngleGates(nnx.Module):
    """An angle from the rate divides 1 between the update's rate and the decay.

        theta = arctan(exp(f) eta)
        beta = sin^2(theta) beta'            alpha = cos^2(theta) alpha'^exp(A)
        log mu = max(exp(M) log mu', -2)

    Momentum DeltaNet (2605.05838), as flash-linear-attention computes it. eta, beta', alpha' and
    mu' are the gates' own projections; f, A and M are learned per head. exp(f) starts evenly spaced
    over the heads in (0, 4), where the paper draws it; exp(A) and exp(M) start at 1, since the
    gates' own starts already say how much is retained, where the paper draws them from (0, 16).

    Gates are found by their roles. A rule without momentum has no M.

    Args:
        rule: with one learned rate, rate of the update and decay per head.
        heads: H.
    """

    def __init__(self, rule: Rule, heads: int):
        def names(role: Role) -> list[str]:
            return [gate.name for gate in rule.gates_of(role) if gate.learned]

        self.rate, self.update, self.decay = (
            names(role)[0] for role in ("rate", "update", "decay")
        )
        self.momentum = next(iter(names("momentum")), None)
        self.log_factor = param(jnp.log(4 * middles(heads)), ("heads",))
        self.decay_scale = param(jnp.zeros(heads), ("heads",))
        if self.momentum is not None:
            self.momentum_scale = param(jnp.zeros(heads), ("heads",))

    def __call__(self, gates: dict[str, Array]) -> dict[str, Array]:
        """Map the projected gates [B, T, H] to those that the rule is given."""
        ratio = jnp.exp(self.log_factor[...]) * gates[self.rate]  # tan(theta)
        log_upper = -jnp.log1p(ratio**2)  # log cos^2(theta)
        coupled = {
            self.update: -jnp.expm1(log_upper) * gates[self.update],
            self.decay: log_upper + jnp.exp(self.decay_scale[...]) * gates[self.decay],
        }
        if self.momentum is not None:
            log_mu = jnp.exp(self.momentum_scale[...]) * gates[self.momentum]
            coupled[self.momentum] = jnp.maximum(log_mu, MIN_LOG_MOMENTUM)
        return {**gates, **coupled}


def middles(heads: int) -> Array:
    """The middles of H equal parts of (0, 1), [H]."""
    return (jnp.arange(heads) + 0.5) / heads
