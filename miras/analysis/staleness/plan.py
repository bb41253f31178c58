"""Which settings of chunk, refine and exact to measure, and why others are left out."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from miras.config import require
from miras.models.config import LanguageModelConfig
from miras.rule import legality


class Setting(NamedTuple):
    """At which memory gradients are taken; see `miras.scan`."""

    chunk: int
    refine: int = 0
    exact: bool = False

    @classmethod
    def of(cls, config: LanguageModelConfig) -> "Setting":
        """The model's own."""
        return cls(config.chunk, config.refine, config.exact)

    def apply(self, config: LanguageModelConfig) -> LanguageModelConfig:
        """The model under this setting; its parameters stay as they are."""
        return dataclasses.replace(config, chunk=self.chunk, refine=self.refine, exact=self.exact)

    @property
    def is_online(self) -> bool:
        """Whether it is the online rule by definition, whatever the text and the parameters.

        At refine = chunk - 1 every gradient of a chunk is taken where the online rule takes it.
        """
        return self.exact or self.refine >= self.chunk - 1

    def __str__(self) -> str:
        """As a person would say it."""
        return f"chunk {self.chunk}, {'exact' if self.exact else f'refine {self.refine}'}"


ONLINE = Setting(chunk=1)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        own: the model's own setting.
        chunks: the rows of the grid, rising.
        refines: its columns, rising; those that the rule allows.
        exact: whether the rule has the online function in closed form: one more column.
        left_out: the refines that the rule does not allow.
        reason: why; None where all are allowed.
    """

    own: Setting
    chunks: tuple[int, ...]
    refines: tuple[int, ...]
    exact: bool
    left_out: tuple[int, ...]
    reason: str | None

    @property
    def grid(self) -> tuple[Setting, ...]:
        """All settings of the grid that differ in what they compute.

        More sweeps than chunk - 1 change nothing and are left out.
        """
        rows = []
        for chunk in self.chunks:
            rows += [Setting(chunk, refine) for refine in self.refines if refine < chunk]
            rows += [Setting(chunk, exact=True)] if self.exact and chunk > 1 else []
        return tuple(rows)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The online setting, the model's own and the grid, each once."""
        return tuple(dict.fromkeys((ONLINE, self.own, *self.grid)))


def make_plan(config: LanguageModelConfig, chunks: Sequence[int], refines: Sequence[int]) -> Plan:
    """What can be measured of a model.

    Raises:
        ConfigError: for a chunk or refine out of range, and for a rate that depends on the chunk.
    """
    for chunk in chunks:
        require(chunk >= 1, f"chunk={chunk} must be at least 1, which is the online rule.")
    for refine in refines:
        require(refine >= 0, f"refine={refine} must be at least 0, which is the papers' rule.")
    require(
        config.letters == "M" and config.architecture == "lmm",
        f"model.pattern={config.pattern!r} with model.architecture={config.architecture!r} has "
        "attention between the memories, whose inputs differ then: measure pattern='M' with "
        "architecture='lmm'.",
    )
    require(
        not (config.layer.lr_by_position or config.rule.algorithm.averaged),
        "layer.lr_by_position=true and algorithm.averaged=true change the rate with the token's "
        "position in its chunk, so another chunk is other rates too, and no distance tells "
        "staleness alone: for a new model set layer.lr_by_position=false and, where the algorithm "
        "has it, algorithm.averaged=false.",
    )
    reasons = {refine: _refusal(config, refine) for refine in sorted(set(refines))}
    return Plan(
        own=Setting.of(config),
        chunks=tuple(sorted(set(chunks))),
        refines=tuple(refine for refine, reason in reasons.items() if reason is None),
        exact=_refusal(config, 0, exact=True) is None,
        left_out=tuple(refine for refine, reason in reasons.items() if reason is not None),
        reason=next((reason for reason in reasons.values() if reason is not None), None),
    )


def _refusal(config: LanguageModelConfig, refine: int, exact: bool = False) -> str | None:
    """Why the rule does not allow it."""
    verdicts = legality.of_semantics(config.rule, refine, exact)
    return next((verdict.reason for verdict in verdicts if not verdict.legal), None)
