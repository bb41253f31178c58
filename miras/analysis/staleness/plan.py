"""The settings of chunk, refine and exact to measure, and why others are left out."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from miras.config import require
from miras.models.config import LanguageModelConfig
from miras.rule import legality


class ChunkSetting(NamedTuple):
    """At which memory the gradients of a chunk are taken; see `miras.scan`."""

    chunk: int
    refine: int = 0
    exact: bool = False

    @classmethod
    def of(cls, config: LanguageModelConfig) -> "ChunkSetting":
        """The setting of a config."""
        return cls(config.chunk, config.refine, config.exact)

    def apply(self, config: LanguageModelConfig) -> LanguageModelConfig:
        """The config with this setting; the parameters have the same shapes."""
        return dataclasses.replace(config, chunk=self.chunk, refine=self.refine, exact=self.exact)

    @property
    def is_online(self) -> bool:
        """Whether it equals the online rule by definition, for any text and parameters.

        With refine = chunk - 1 every gradient of a chunk is taken where the online rule takes it.
        """
        return self.exact or self.refine >= self.chunk - 1

    def __str__(self) -> str:
        """As in messages, "chunk 16, refine 1"."""
        return f"chunk {self.chunk}, {'exact' if self.exact else f'refine {self.refine}'}"


ONLINE = ChunkSetting(chunk=1)


@dataclasses.dataclass(frozen=True)
class StalenessPlan:
    """The settings to measure.

    Attributes:
        own: the model's own setting.
        chunks: the rows of the grid, ascending.
        refines: its columns, ascending; those that the rule allows.
        exact: whether the rule has a closed form, which adds a column.
        left_out: the refines that the rule does not allow.
        reason: why; None if all are allowed.
    """

    own: ChunkSetting
    chunks: tuple[int, ...]
    refines: tuple[int, ...]
    exact: bool
    left_out: tuple[int, ...]
    reason: str | None

    @property
    def grid(self) -> tuple[ChunkSetting, ...]:
        """The distinct settings of the grid: more than chunk - 1 sweeps change nothing."""
        rows = []
        for chunk in self.chunks:
            rows += [ChunkSetting(chunk, refine) for refine in self.refines if refine < chunk]
            rows += [ChunkSetting(chunk, exact=True)] if self.exact and chunk > 1 else []
        return tuple(rows)

    @property
    def settings(self) -> tuple[ChunkSetting, ...]:
        """The online setting, the model's own and the grid, each once."""
        return tuple(dict.fromkeys((ONLINE, self.own, *self.grid)))


def make_plan(
    config: LanguageModelConfig, chunks: Sequence[int], refines: Sequence[int]
) -> StalenessPlan:
    """The settings that can be measured for a model.

    Raises:
        ConfigError: for a chunk or refine out of range, a model with attention, or a learning rate
            that depends on the chunk.
    """
    for chunk in chunks:
        require(chunk >= 1, f"chunk={chunk} must be at least 1 (the online rule).")
    for refine in refines:
        require(refine >= 0, f"refine={refine} must be at least 0 (the rule of the papers).")
    require(
        config.letters == "M" and config.architecture == "lmm",
        f"model.pattern={config.pattern!r} with model.architecture={config.architecture!r} has "
        "attention between the memories, which changes their inputs: measure pattern='M' with "
        "architecture='lmm'.",
    )
    require(
        not (config.layer.lr_by_position or config.rule.algorithm.averaged),
        "layer.lr_by_position=true and algorithm.averaged=true make the learning rate depend on "
        "the position in the chunk, so the distance would not measure staleness alone: for a new "
        "model set layer.lr_by_position=false and, if the algorithm has it, "
        "algorithm.averaged=false.",
    )
    reasons = {refine: _reason(config, refine) for refine in sorted(set(refines))}
    return StalenessPlan(
        own=ChunkSetting.of(config),
        chunks=tuple(sorted(set(chunks))),
        refines=tuple(refine for refine, reason in reasons.items() if reason is None),
        exact=_reason(config, 0, exact=True) is None,
        left_out=tuple(refine for refine, reason in reasons.items() if reason is not None),
        reason=next((reason for reason in reasons.values() if reason is not None), None),
    )


def _reason(config: LanguageModelConfig, refine: int, exact: bool = False) -> str | None:
    """Why the rule does not allow a setting; None if it does."""
    conditions = legality.of_semantics(config.rule, refine, exact)
    return next((condition.reason for condition in conditions if not condition.legal), None)
