"""Matched rates: the inner rate at which a rule writes as strongly as another.

    eta' = min { eta : s_new(eta) = s_base(eta_base) }        max_lr' = max_lr_base eta' / eta_base

Matching declines where s does not depend on the rate, and where the target is above half of the
peak of the curve. In a memory without a peak the target is at most 1 / C.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from miras.analysis.strength.curve import Strength, rate_of, strength
from miras.analysis.strength.memories import MemoryOf, memories
from miras.config import override, require
from miras.models import LanguageModelConfig
from miras.rule.rule import Rule


class Match(NamedTuple):
    """What matching found for one memory of a model.

    Attributes:
        path: of the rule in the model's config.
        lr: the rate to take: the matched one, or the rule's own where it declined.
        max_lr: the bound to take.
        own: the rule's rate before.
        target: the strength to reach.
        value: the strength at `lr`.
        base: the rate of the base; None where the target was given as a number.
        declined: why the rule's own rate stays; None where it was matched.
        note: what else to know of a matched rate; None for nothing.
    """

    path: str
    lr: float
    max_lr: float
    own: float
    target: float
    value: float
    base: float | None
    declined: str | None = None
    note: str | None = None

    @property
    def line(self) -> str:
        """The match in a sentence or two."""
        of = "" if self.base is None else f" (base: lr={self.base:g})"
        if self.declined is not None:
            return (
                f"{self.path}.algorithm.lr={self.own:g} stays, with strength {self.value:.3g} "
                f"against {self.target:.3g}{of}: {self.declined}"
            )
        told = f"{self.path}.algorithm: lr {self.own:g} -> {self.lr:g}, max_lr={self.max_lr:g}"
        note = "" if self.note is None else f"; {self.note}"
        return f"{told}, strength {self.target:.3g}{of}{note}."


def match_strength(
    config: LanguageModelConfig, base: LanguageModelConfig | float
) -> LanguageModelConfig:
    """The config with inner rates at which its memories write as strongly as those of the base.

    Of each memory, `lr` becomes the smallest rate whose write strength (`miras.strength`) is the
    base's, and `max_lr` moves by the same factor. A rate stays where strength does not depend on
    it, or where the base's is above half of the most that the rule reaches; `matches` gives the
    reason. Rules that are equal to the base's stay as they are.

    Args:
        config: a model, such as one that `miras.override` made from the base.
        base: the model with the rates to match, or a strength in (0, 1).

    Raises:
        ConfigError: a strength that is out of range or that a rule does not reach.
    """
    for match in matches(config, base):
        config = with_rates(config, match.path, match.lr, match.max_lr)
    return config


def with_rates(
    config: LanguageModelConfig, path: str, lr: float, max_lr: float
) -> LanguageModelConfig:
    """The config with the rate and the bound of one rule."""
    where = f"{path}.algorithm"
    return override(config, f"{where}.max_lr={max_lr!r}", f"{where}.lr={lr!r}")


def matches(config: LanguageModelConfig, base: LanguageModelConfig | float) -> Iterator[Match]:
    """What `match_strength` does for each memory whose rule differs from the base's."""
    if isinstance(base, (int, float)):
        require(0 < base < 1, f"strength={base!r} must be in (0, 1).")
        yield from (_reaching(memory, float(base)) for memory in memories(config))
        return
    known = {memory.path: memory for memory in memories(base)}
    for memory in memories(config):
        if memory.path in known and known[memory.path].rule != memory.rule:
            yield _matching(memory, known[memory.path])


def _matching(memory: MemoryOf, base: MemoryOf) -> Match:
    """The match of a memory with that of the base, both at the width of the memory."""
    target = _strength(base._replace(d=memory.d)).value
    found = _strength(memory)
    was, own = base.rule.algorithm, memory.rule.algorithm
    match = Match(memory.path, own.lr, own.max_lr, own.lr, target, found.value, was.lr)
    if not 0 < target < math.inf:
        return match._replace(declined="the base has no strength of its own to match.")
    if found.flat:
        return match._replace(declined=_flat(memory.rule))
    limit, note = found.limit(memory.chunk), None
    if target > limit:
        if found.peak is not None:
            return match._replace(declined=_muted(memory.rule, found.peak))
        target = limit
        note = (
            f"1 / chunk = {limit:.3g} is the most that a memory without a norm takes, since equal "
            "keys of a chunk add up"
        )
    ratio = was.max_lr / was.lr if was.lr < was.max_lr else own.max_lr / own.lr
    return _at(match, memory, target, ratio)._replace(note=note)


def _reaching(memory: MemoryOf, target: float) -> Match:
    """The match of a memory with a strength that the user gives."""
    found, own = _strength(memory), memory.rule.algorithm
    where = f"strength={target:g} of {memory.path}"
    require(not found.flat, f"{where} is not a matter of its lr: {_flat(memory.rule)}")
    require(
        found.peak is None or target <= found.peak,
        f"{where} is out of reach: {_reached(memory.rule, found.peak or 0)}: "
        f"{_raised(memory.rule)}.",
    )
    match = Match(memory.path, own.lr, own.max_lr, own.lr, target, found.value, None)
    return _at(match, memory, target, own.max_lr / own.lr)


def _at(match: Match, memory: MemoryOf, target: float, ratio: float) -> Match:
    """The match at the rate of a strength, in three digits, so that it is the same everywhere."""
    rate = rate_of(
        memory.rule, memory.d, target, chunk=memory.chunk, lr_by_position=memory.lr_by_position
    )
    require(
        math.isfinite(rate),
        f"no rate gives {memory.path} the strength {target:.3g}: its writes do not reach its "
        "answers, so set algorithm.lr by hand.",
    )
    lr, max_lr = (float(f"{x:.3g}") for x in (rate, ratio * rate))
    return match._replace(lr=lr, max_lr=max_lr, target=target, value=target)


def _strength(memory: MemoryOf) -> Strength:
    _, rule, chunk, d, lr_by_position = memory
    return strength(rule, d, chunk=chunk, lr_by_position=lr_by_position)


def _flat(rule: Rule) -> str:
    return (
        f"the steps of algorithm {rule.algorithm.kind!r} have the same length at any lr; change "
        "another field, or take another algorithm."
    )


def _muted(rule: Rule, peak: float) -> str:
    """Why a target is above the limit, and the field to raise."""
    return (
        f"{_reached(rule, peak)}, and a start should be at most half of that, so they mute the "
        f"memory: {_raised(rule)}."
    )


def _reached(rule: Rule, peak: float) -> str:
    return f"{', '.join(rule.kinds().values())} together reach at most {peak:.3g} at any rate"


def _raised(rule: Rule) -> str:
    """What to change so that writes reach further."""
    parts = {axis: getattr(rule, axis) for axis in rule.kinds()}
    fields = [f"{axis}.{part.reach}" for axis, part in parts.items() if part.reach is not None]
    return f"raise {' or '.join(fields)}" if fields else "take another part, or set algorithm.lr"
