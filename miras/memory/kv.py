"""kv memory: all past tokens as they are, which is softmax attention."""

import dataclasses
from collections.abc import Iterator

import jax

from miras.array_typing import Weights
from miras.config import require
from miras.memory.base import Memory, TokenCache, register
from miras.parts.formula import Line, MemoryFormula, number
from miras.parts.part import Condition, RuleView


@register("kv")
@dataclasses.dataclass(frozen=True)
class KV(Memory):
    """y_t = sum_s softmax_s(scale q_t . k_s) v_s over the tokens s <= t that it keeps.

    The Nadaraya-Watson estimate: the minimiser over y of sum_s exp(scale q_t.k_s) ||y - v_s||^2, so
    the l2 bias solved without parameters; MIRAS (2504.13173), table 1, and attention (1706.03762).
    Its state grows by a key and a value a token, up to the window.

    W0 are its persistent tokens, which every query sees in front of its window: learned keys and
    values [P, dk] and [P, dv] per head, which know the task and not the text (Titans, 2501.00663,
    section 3.3; Sukhbaatar et al., 1907.01470). A learned vector p before the text enters attention
    by p W_K and p W_V alone, so these are held as they are.

    Attributes:
        window: tokens that a query sees, its own among them, >= 1; None for all.
        scale: of the scores; 1 / sqrt(dk) if not given.
        persistent: P, >= 0.
    """

    window: int | None = None
    scale: float | None = None
    persistent: int = 0

    def validate(self) -> None:
        """Check ranges."""
        require(
            self.window is None or self.window >= 1,
            f"KV.window={self.window} must be at least 1, or none.",
        )
        require(
            self.scale is None or self.scale > 0,
            f"KV.scale={self.scale} must be positive, or none.",
        )
        require(self.persistent >= 0, f"KV.persistent={self.persistent} must not be negative.")

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """The persistent keys and values, of unit variance as a token's own are."""
        if not self.persistent:
            return {}
        of_k, of_v = jax.random.split(key)
        return {
            "k": jax.random.normal(of_k, (self.persistent, dk)),
            "v": jax.random.normal(of_v, (self.persistent, dv)),
        }

    @property
    def token_cache(self) -> TokenCache:
        """The fields."""
        return TokenCache(self.window, self.scale, self.persistent)

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """No algorithm, the l2 bias, nothing that forgets, reads after each token."""
        algorithm, bias, retention = rule.algorithm, rule.bias, rule.retention
        yield Condition(
            not algorithm.parametric,
            f"memory 'kv' does not go with algorithm {algorithm.kind!r}, since 'kv' keeps all "
            "tokens and learns nothing, and every other memory has to",
            "use memory 'kv' with algorithm 'nonparametric', or neither",
        )
        yield Condition(
            bias.slope == 1 and retention.keeps_all,
            "memory 'kv' is the minimiser of a kernel-weighted l2 bias over tokens that it keeps, "
            f"not of {bias.kind!r} under {retention.kind!r}",
            "use bias 'l2' and retention 'none'",
        )
        yield Condition(
            rule.order == "learn_first" and rule.read == "token",
            "memory 'kv' decays nothing and reads after each token",
            "use order='learn_first' and read='token'",
        )

    def formula(self, gates) -> MemoryFormula:
        """Attention."""
        first = "1" if self.window is None else rf"\max(1, t-{self.window - 1})"
        scores = r"q_t k_s^\top"
        if self.scale is None:
            scores = rf"\frac{{{scores}}}{{\sqrt{{d_k}}}}"
        elif self.scale != 1:
            scores = f"{number(self.scale)} {scores}"
        tokens = "" if self.window is None else f"the last {self.window} tokens"
        if self.persistent:
            more = f"{self.persistent} learned keys and values, which every query sees"
            tokens = f"{tokens or 'all tokens'}, and {more}"
        told = rf"\sum_{{s={first}}}^{{t}} \mathrm{{softmax}}_s({scores}) v_s"
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            attends=(Line("y_t", told, when=tokens),),
        )

    def sources(self) -> tuple[str, ...]:
        """Attention, and whose window or persistent tokens it has."""
        found = ("attention, arXiv 1706.03762, eq. 1", "MIRAS, arXiv 2504.13173, table 1")
        if self.window is not None:
            found += ("sliding windows, arXiv 2004.05150, section 3.1",)
        if self.persistent:
            found += ("persistent tokens: Titans, arXiv 2501.00663, section 3.3; arXiv 1907.01470",)
        return found
