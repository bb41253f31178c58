"""The settings of chunk, refine and exact to measure, and why others are left out."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from miras.analysis.staleness.memories import chunked, memories, with_options
from miras.config import require
from miras.errors import ConfigError
from miras.models.config import LanguageModelConfig
from miras.rule import legality


class ChunkSetting(NamedTuple):
    """At which memory the gradients of a chunk are taken; see `miras.scan`."""

    chunk: int
    refine: int = 0
    exact: bool = False

    def apply(self, config: LanguageModelConfig) -> LanguageModelConfig:
        """The config with this setting in every block; the parameters have the same shapes."""
        return with_options(config, **self._asdict())

    @property
    def is_online(self) -> bool:
        """Whether it equals the online rule by definition, for any text and parameters.

        With refine = chunk - 1 every gradient of a chunk is taken where the online rule takes it.
        """
        return self.exact or self.refine >= self.chunk - 1

    @property
    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return self._asdict()

    def __str__(self) -> str:
        """As in messages, "chunk 16, refine 1"."""
        return f"chunk {self.chunk}, {'exact' if self.exact else f'refine {self.refine}'}"


class OwnSettings(NamedTuple):
    """The settings of a model whose memories differ in them: pairs of a memory's name and its."""

    by_memory: tuple[tuple[str, ChunkSetting], ...]

    def apply(self, config: LanguageModelConfig) -> LanguageModelConfig:
        """The config as it is."""
        return config

    @property
    def chunk(self) -> int:
        """The largest chunk."""
        return max(setting.chunk for _, setting in self.by_memory)

    @property
    def is_online(self) -> bool:
        """Whether all are."""
        return all(setting.is_online for _, setting in self.by_memory)

    @property
    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return {"memories": {name: setting._asdict() for name, setting in self.by_memory}}

    def __str__(self) -> str:
        """As in messages."""
        return "; ".join(f"{name}: {setting}" for name, setting in self.by_memory)


Setting = ChunkSetting | OwnSettings
ONLINE = ChunkSetting(chunk=1)


def own_setting(config: LanguageModelConfig) -> Setting:
    """The setting of a config: one where all memories share it."""
    found = {m.name: ChunkSetting(m.chunk, m.refine, m.exact) for m in memories(config)}
    distinct = set(found.values())
    return distinct.pop() if len(distinct) == 1 else OwnSettings(tuple(found.items()))


@dataclasses.dataclass(frozen=True)
class StalenessPlan:
    """The settings to measure.

    Attributes:
        own: the model's own setting.
        chunks: the rows of the grid, ascending.
        refines: its columns, ascending; those that all rules allow.
        exact: whether all rules have a closed form, which adds a column.
        left_out: the refines that a rule does not allow.
        reason: why; None if all are allowed.
        chunks_left_out: the chunks that a mixer does not allow.
        reason_of_chunks: why; None if all are allowed.
    """

    own: Setting
    chunks: tuple[int, ...]
    refines: tuple[int, ...]
    exact: bool
    left_out: tuple[int, ...]
    reason: str | None
    chunks_left_out: tuple[int, ...] = ()
    reason_of_chunks: str | None = None

    @property
    def grid(self) -> tuple[ChunkSetting, ...]:
        """The distinct settings of the grid: more than chunk - 1 sweeps change nothing."""
        rows = []
        for chunk in self.chunks:
            rows += [ChunkSetting(chunk, refine) for refine in self.refines if refine < chunk]
            rows += [ChunkSetting(chunk, exact=True)] if self.exact and chunk > 1 else []
        return tuple(rows)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The online setting, the model's own and the grid, each once."""
        return tuple(dict.fromkeys((ONLINE, self.own, *self.grid)))


def make_plan(
    config: LanguageModelConfig, chunks: Sequence[int], refines: Sequence[int]
) -> StalenessPlan:
    """The settings that can be measured for a model.

    Raises:
        ConfigError: for a chunk or refine out of range, a model without a memory, or a learning
            rate that depends on the chunk.
    """
    for chunk in chunks:
        require(chunk >= 1, f"chunk={chunk} must be at least 1 (the online rule).")
    for refine in refines:
        require(refine >= 0, f"refine={refine} must be at least 0 (the rule of the papers).")
    require(
        bool(chunked(config)),
        f"model.pattern={config.pattern!r} has no memory whose chunk is set by `chunk`, so there "
        "is no staleness to measure: give a model with the mixer 'memory' or another that uses it.",
    )
    found = list(memories(config))
    by_position = any(memory.layer.lr_by_position for memory in found)
    require(
        not (by_position or any(memory.rule.algorithm.averaged for memory in found)),
        "layer.lr_by_position=true and algorithm.averaged=true make the learning rate depend on "
        "the position in the chunk, so the distance would not measure staleness alone: for a new "
        "model set layer.lr_by_position=false and, if the algorithm has it, "
        "algorithm.averaged=false.",
    )
    require(
        not (config.value_residual or config.embedding_norm),
        "layer.value_residual=true and embedding_norm=true give layers more than the tokens of the "
        "one below, on which staleness measures each: set both to false.",
    )
    reasons = {refine: _reason(config, refine) for refine in sorted(set(refines))}
    illegal = {chunk: _illegal(config, chunk) for chunk in sorted(set(chunks))}
    require(None in illegal.values(), str(_first(illegal.values())))
    return StalenessPlan(
        own=own_setting(config),
        chunks=_without_reason(illegal),
        refines=_without_reason(reasons),
        exact=_reason(config, 0, exact=True) is None,
        left_out=tuple(refine for refine, reason in reasons.items() if reason is not None),
        reason=_first(reasons.values()),
        chunks_left_out=tuple(chunk for chunk, reason in illegal.items() if reason is not None),
        reason_of_chunks=_first(illegal.values()),
    )


def _without_reason(reasons: dict[int, str | None]) -> tuple[int, ...]:
    return tuple(value for value, reason in reasons.items() if reason is None)


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _illegal(config: LanguageModelConfig, chunk: int) -> str | None:
    """Why a mixer does not allow a chunk, such as one that does not divide its segment."""
    try:
        ChunkSetting(chunk).apply(config)
    except ConfigError as error:
        return str(error)
    return None


def _reason(config: LanguageModelConfig, refine: int, exact: bool = False) -> str | None:
    """Why a rule does not allow a setting; None if all do."""
    rules = dict.fromkeys(memory.rule for memory in memories(config))
    conditions = [c for rule in rules for c in legality.of_semantics(rule, refine, exact)]
    return next((condition.reason for condition in conditions if not condition.legal), None)
