"""Memories of slots that keys and values are compressed into."""

from miras import bias, memory, optim, retention
from miras.models.config import LanguageModelConfig
from miras.presets.registry import register
from miras.rule.rule import Rule


@register("Trellis", "Karami et al., arXiv 2512.23852")
def trellis() -> LanguageModelConfig:
    """Two passes of gradient descent, which fit a key and a value to one code of 32 slots.

        w1_t = beta_t w1_{t-1} - gamma_t k_t^T (phi(k_t w1) - a_t) J
        w2_t = beta_t w2_{t-1} - gamma_t ((phi(v_t w2^T) - a_t) J)^T v_t
        y_t = phi(q_t w1_t) w2_t                                phi(z) = LN(SiLU(z))

    `miras.memory.CompressedSlots` has the update in full, and says why it has no exact chunk form:
    phi makes it non-linear in the slots. Where published descriptions differ or
    say nothing, this takes: phi in both passes and in the read, not on y; a_t linear in the token,
    the same for both passes; gamma_t and beta_t per head, from the token, shared by the passes;
    gradients before the decay, at the chunk's start; queries and keys of unit norm without a factor
    d^-1/2, values as they are; initial slots that are learned, where others begin at 0, at which LN
    has no slope; an eps under which what is forgotten vanishes instead of being divided by its own
    size.
    """
    return LanguageModelConfig(
        Rule(
            memory=memory.CompressedSlots(count=32, eps=0.01),
            bias=bias.L2Loss(),
            retention=retention.L2(decay=0.99),
            algorithm=optim.GD(lr=0.08, max_lr=1.0),
        )
    )
