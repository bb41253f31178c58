r"""Log-linear memories: one for each level of a Fenwick tree, over any rule of a linear memory.

"Log-Linear Attention", Guo et al., arXiv 2506.04761, as its reference computes it. Before each
token, level l is merged into level l + 1 while it is full (2^l tokens); all levels take the rule's
transition, and level 0 gets the token:

    y_t = sum_l lambda_t[l] q_t W_l        lambda_t[l] = softplus(L_l * dl_t[l])

lambda_t is from the query's token, q has no scale of its own, and T tokens have ceil(log2 T) + 1
levels. With lambda = 1 the sum of all levels is the memory of the base rule, and y its read.

Choices where the source leaves one:

- dl_t has a value for each head and level, a linear map of x with a bias, and L_l one for each head
  and level. lambda is 1 at initialisation, so that training starts from the base rule.
- The learned initial memory is at the last level.
- The number of levels is fixed (`levels`), so that the state does not grow: the last one keeps all
  tokens that would be at higher ones. 16 levels are those of the first 32,768 tokens.

The rule must be affine in its values, column by column, and the same at any chunk: a linear memory,
bias l2 or dot, gd or momentum, a linear retention without gates per value channel, and, unless the
gradient does not depend on the memory, exact=true or chunk=1. A call costs O(T log T) products:
each chunk is one call of `miras.scan` with log T times the columns.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, ClassVar

from miras.config import require
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.costs import weights_of
from miras.parts.formula import Line

if TYPE_CHECKING:
    from flax import nnx


@register("log_linear")
@dataclasses.dataclass(frozen=True)
class LogLinearMixer(TokenMixer):
    """A memory for each level of a Fenwick tree: `miras.mixers.log_linear`.

    Attributes:
        levels: L, in [2, 32]; a document's tokens beyond the first 2^(L-1) share the last level.
    """

    loops: ClassVar[bool] = True
    levels: int = 16

    def validate(self) -> None:
        """Check the range."""
        require(2 <= self.levels <= 32, f"log_linear.levels={self.levels} must be from 2 to 32.")

    def build(self, config: MixerConfig, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """A layer whose memories have levels."""
        # Configs load without flax.
        from miras.layers.memory_layer import MemoryLayer
        from miras.mixers.fenwick_weights import FenwickWeights

        weights = functools.partial(FenwickWeights, levels=self.levels)
        return MemoryLayer(
            config.memory, width, heads, config=config.layer, weights=weights, rngs=rngs
        )

    def check(self, config: MixerConfig, where: str) -> None:
        """A rule that is affine in its values, and the same at any chunk."""
        rule = config.rule
        parts = (rule.memory, rule.bias, rule.retention, rule.algorithm)
        affine = (
            rule.memory.is_linear
            and rule.bias.slope is not None
            and rule.algorithm.linear
            and rule.retention.linked is None
            and all(part.separable for part in parts)
        )
        require(
            affine and rule.read == "token",
            "log_linear moves all levels by one linear map, which the rule "
            f"{', '.join(rule.kinds().values())} with read={rule.read!r} has not: use memory "
            "'matrix' with bias 'l2' or 'dot', algorithm 'gd' or 'momentum', retention 'l2' or "
            "'none', and read='token'.",
        )
        require(
            rule.association_count == 1,
            f"log_linear keeps each token's association in a level of its own, and retention "
            f"{rule.retention.kind!r} also writes that of the token before: use retention 'l2'.",
        )
        by_value = next((gate.name for gate in rule.gates if gate.side == "value"), None)
        require(
            by_value is None,
            f"log_linear gives all columns of a memory one transition, but gate {by_value!r} has "
            "a value for each value channel: use granularity='head' or 'key'.",
        )
        require(
            config.exact or config.chunk == 1 or rule.bias.slope == 0,
            f"log_linear reads tokens of any age, so that its rule must be the same at any chunk, "
            f"but bias {rule.bias.kind!r} with {where}chunk={config.chunk} is not: set "
            f"{where}exact=true, or {where}chunk=1.",
        )
        require(
            not config.layer.lr_by_position and config.refine == 0,
            "log_linear counts no positions in chunks: set layer.lr_by_position=false and "
            "refine=0.",
        )

    def flops(self, config: MixerConfig, width: int, heads: int, context: int) -> float:
        """Those of the memory, with a column of a chunk's token and of each level for each of v."""
        head = width // heads
        sizes = sum(leaf.size for leaf in weights_of(config.rule, head).values())
        levels = min(self.levels, max(context, 1).bit_length() + 1)
        base = super().flops(config, width, heads, context)
        merges = 2.0 * heads * sizes * levels * (levels + config.chunk) / config.chunk
        return base * (levels - 1 + config.chunk / head) + merges

    def formula(self) -> tuple[Line, ...]:
        """The weighted read of the levels."""
        return (
            Line(
                "o_t",
                r"\sum_l \lambda_{t,l} q_t W_{t,l}",
                when="level 0 holds token t, level l > 0 a block of 2^(l-1) earlier tokens",
            ),
            Line(r"\sum_l W_{t,l}", "W_t", when=f"{self.levels} levels"),
            Line(
                r"\lambda_{t,l}",
                r"\mathrm{softplus}(L_l d_{t,l})",
                when="d is linear in x; 1 at the start",
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """The paper."""
        return ("Log-Linear Attention, Guo et al., arXiv 2506.04761, section 3",)

    def describe(self, config: MixerConfig) -> str:
        """The levels."""
        del config
        return f"{self.levels} levels of a Fenwick tree, each with a memory"
