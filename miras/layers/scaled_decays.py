"""ScaledDecays: log decays times a constant and a learned factor."""

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import param
from miras.rule.rule import Rule


class ScaledDecays(nnx.Module):
    """log alpha = c exp(A) log alpha', for each learned decay alpha' of a rule.

    With log alpha' = log sigmoid(-z) = -softplus(z) this is the decay -exp(A) softplus(z) of Mamba
    (2312.00752) and Gated DeltaNet (2412.06464), and with c = 1/16 that of GLA (2312.06635).

    Args:
        rule: with a learned decay.
        heads: H.
        power: c.
        learned: whether there is an A, one per head, 0 at the start.
    """

    def __init__(self, rule: Rule, heads: int, *, power: float, learned: bool):
        self.decays = tuple(gate.name for gate in rule.gates_of("decay") if gate.learned)
        self.power = power
        self.log_scale = param(jnp.zeros(heads), ("heads",)) if learned else None

    def __call__(self, gates: dict[str, Array]) -> dict[str, Array]:
        """Map the projected gates [B, T, H, ...] to those that the rule is given."""
        scaled = {}
        for name in self.decays:
            gate = self.power * gates[name]
            if self.log_scale is not None:
                scale = jnp.exp(self.log_scale[...])
                gate = gate * scale.reshape(-1, *[1] * (gate.ndim - 3))
            scaled[name] = gate
        return {**gates, **scaled}
