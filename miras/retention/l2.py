"""l2 retention: weight decay, local and global, of RetNet, GLA, Mamba-2, Titans and Yaad."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import ClassVar

import jax.numpy as jnp

from miras.array_typing import Array
from miras.config import require
from miras.parts.association import Association, Buffers
from miras.parts.formula import AssociationFormula, Line, RetentionFormula, Symbols
from miras.parts.part import Condition, RuleView
from miras.retention.base import Decaying, register


@register("l2")
@dataclasses.dataclass(frozen=True)
class L2(Decaying):
    """A_t = alpha_t A_{t-1} + U_t, W_t = A_t. MIRAS (2504.13173), table 1.

    With `data_dependent=False` alpha is the constant of RetNet (2307.08621); otherwise it comes
    from the token: per head as in Mamba-2 (2405.21060) and Titans (2501.00663, equation 13), per
    key channel as in GLA (2312.06635), as a product of key and value channels in DFW.

    Attributes:
        tied: write along 1 - alpha_t instead of the key (HGRN2, 2404.07904, equation 9); needs
            granularity="key".
        discretised: alpha_t^eta_t in place of alpha_t: the decay of a continuous system over a
            step of length eta_t, exp(-A dt) (Mamba-2, 2405.21060).
    """

    separable: ClassVar[bool] = True

    tied: bool = False
    discretised: bool = False

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(
            not self.tied or self.granularity == "key",
            f"L2.tied=True writes along 1 - alpha_t, a key: it needs granularity='key', not "
            f"{self.granularity!r}.",
        )
        require(
            not self.discretised or self.granularity == "head",
            f"L2.discretised=True needs granularity='head', not {self.granularity!r}.",
        )

    @property
    def one_association(self) -> bool:
        """`tied`."""
        return self.tied

    @property
    def uses_rate(self) -> bool:
        """`discretised`."""
        return self.discretised

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Of steps of a length, and of writes along the decay."""
        memory, algorithm = rule.memory, rule.algorithm
        if self.discretised:
            yield Condition(
                algorithm.lr_at == "gradient" and algorithm.granularity == "head",
                "l2.discretised=True takes eta_t for the length of a step, one for each head, "
                f"which the lr of {algorithm.kind!r} here is not",
                "use algorithm 'gd' with granularity='head', or discretised=False",
            )
        if self.tied:
            yield Condition(
                memory.is_linear and algorithm.takes_terms,
                "l2.tied=True writes along 1 - alpha_t in a linear memory, whose gradient is an "
                f"outer product with the key, not {memory.kind!r} with {algorithm.kind!r}",
                "use memory 'matrix' with algorithm 'gd', or tied=False",
            )
        yield from super().conditions(rule)

    def effective(self, gates: dict[str, Array]) -> dict[str, Array]:
        """eta_t log alpha_t in place of log alpha_t, where discretised."""
        if not self.discretised:
            return gates
        return {**gates, "log_decay": gates["lr"] * gates["log_decay"]}

    def associate(
        self, tokens: Association, gates: Mapping[str, Array], buffers: Buffers
    ) -> Association:
        """The key 1 - alpha_t where tied."""
        return tokens._replace(k=-jnp.expm1(gates["log_decay"])) if self.tied else tokens

    def formula(self, gates) -> RetentionFormula:
        """The power of a decay where discretised."""
        alpha, eta = gates.get("log_decay", ""), gates.get("lr", "")
        return RetentionFormula(
            decay=f"{alpha}^{{{eta}}}" if self.discretised else None,
        )

    def association_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, tuple[Line, ...]]:
        """The key where tied."""
        if not self.tied:
            return tokens, ()
        write = tokens.write if tokens.write != tokens.read else ""
        read = f"(1 - {gates['log_decay']})"
        return tokens._replace(read=read, write=write or read), ()

    def sources(self) -> tuple[str, ...]:
        """MIRAS, and whose decay it is."""
        found = ["MIRAS, arXiv 2504.13173, table 1"]
        if self.slopes == "alibi":
            found.append("slopes: Lightning Attention-2, arXiv 2401.04658")
        elif not self.data_dependent and self.spread != 1 and self.granularity == "head":
            found.append("a constant per head: RetNet, arXiv 2307.08621, eq. 6")
        if self.data_dependent and self.granularity == "key" and not self.tied:
            found.append("a decay per key channel: GLA, arXiv 2312.06635, section 4")
        if self.granularity == "key_value":
            found.append("a decay per key and value channel: DFW, arXiv 2210.04243, section 3")
        if self.tied:
            found.append("keys tied to decays: HGRN2, arXiv 2404.07904, eq. 9")
        if self.discretised:
            found.append("decays from step lengths: Mamba-2, arXiv 2405.21060, section 7")
        return tuple(found)
