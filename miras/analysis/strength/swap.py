"""The rates of a run's config that was made by overrides: matched, raw or the parts' defaults.

A swap of the memory, the bias, the retention, its link or the algorithm changes what a rate means.
"""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from miras.analysis.strength.match import matches, with_rates
from miras.analysis.strength.memories import MemoryOf, memories
from miras.config import override, resolve, to_dict
from miras.errors import ConfigError
from miras.models import LanguageModelConfig
from miras.retention.base import Decaying
from miras.rule.rule import Rule

Rates = Literal["matched", "raw", "default"]
STRENGTH = "strength"  # the key of a strength that the user gives in place of a rate

_LOG = logging.getLogger(__name__)


def settle(
    config: LanguageModelConfig,
    base: LanguageModelConfig,
    assignments: Sequence[str],
    rates: Rates = "matched",
    *,
    saved: LanguageModelConfig | None = None,
    target: float | None = None,
) -> LanguageModelConfig:
    """The config with the rates that it is trained at, as plain values of `lr` and `max_lr`.

    Rates that the assignments give stay: as `algorithm.lr`, or in a part given as a dict, unless a
    later assignment replaces the part. Each matched rate is logged with its strength.

    Args:
        config: `base` under the assignments.
        base: the model with the rates to keep or to match.
        assignments: of `override`, with paths from the model's config.
        rates: for rules that an assignment swapped: "matched" to the strength of the base, see
            `match_strength`; "raw", those of the base; "default", those of the parts.
        saved: the model of a run to resume: where it differs in rates only it is taken as it is.
        target: a strength that takes the place of the base's, for all memories.

    Raises:
        ConfigError: as `match_strength`.
    """
    given = {
        memory.path: _given(config, memory, _kind_in(base, memory), assignments)
        for memory in memories(config)
    }
    if saved is not None and all(rates == (None, None) for rates in given.values()):
        found = _with_rates_of(config, saved)
        if found == saved:
            return saved
    base = _with_blocks(config, base, assignments)
    known = {memory.path: memory.rule for memory in memories(base)}
    for memory in memories(config):
        path, own = memory.path, memory.rule.algorithm
        if given[path].rate is not None or (
            target is None and not _changed(memory.rule, known.get(path))
        ):
            continue
        if target is not None or rates == "matched":
            for match in matches(config, base if target is None else target):
                if match.path == path:
                    _LOG.info(match.line)
                    bound = given[path].bound or match.max_lr
                    config = with_rates(config, path, match.lr, bound)
        elif rates == "raw":
            was = known[path].algorithm
            bound = was.max_lr if was.lr < was.max_lr else own.max_lr
            config = with_rates(config, path, was.lr, given[path].bound or bound)
    return config


class _Given(NamedTuple):
    """The rate and its bound where assignments give them."""

    rate: float | None
    bound: float | None


def _given(
    config: LanguageModelConfig, memory: MemoryOf, kind: str | None, assignments: Sequence[str]
) -> _Given:
    """The rate and its bound of a memory.

    Args:
        config: under the assignments.
        memory: of the config.
        kind: of its algorithm before the assignments.
        assignments: of `override`.
    """
    algorithm = memory.rule.algorithm
    given: dict[str, float | None] = dict.fromkeys(("lr", "max_lr"))
    for word in assignments:
        if _replaces(config, word, f"{memory.path}.algorithm", kind):
            kind, given = _kind_named(word), dict.fromkeys(given)
        for field in given:
            if _gives(config, word, f"{memory.path}.algorithm.{field}"):
                given[field] = getattr(algorithm, field)
    return _Given(*given.values())


def _kind_in(base: LanguageModelConfig, memory: MemoryOf) -> str | None:
    """The kind of a memory's algorithm in the base, if it has the memory."""
    kinds = (one.rule.algorithm.kind for one in memories(base) if one.path == memory.path)
    return next(kinds, None)


def _replaces(config: LanguageModelConfig, assignment: str, part: str, kind: str | None) -> bool:
    """Whether an assignment of `override` replaces a part of a kind, or what contains it."""
    found, text = _read(config, assignment)
    names = resolve(config, part)
    if found == names:
        return text.strip() != kind  # the name of the kind that is there changes nothing
    return found is not None and found == names[: len(found)]


def _read(config: LanguageModelConfig, assignment: str) -> tuple[list[str] | None, str]:
    """The field that an assignment of `override` means, None if there is none, and its text."""
    path, _, text = assignment.partition("=")
    try:
        return resolve(config, path.strip()), text
    except ConfigError:
        return None, text


def _changed(rule: Rule, base: Rule | None) -> bool:
    """Whether a swap, or a part given without its rate, has changed what the base's rate means."""
    if base is None:
        return False
    reset = rule.algorithm.lr != base.algorithm.lr
    return rule.kinds() != base.kinds() or _link(rule) != _link(base) or reset


def _with_blocks(
    config: LanguageModelConfig, base: LanguageModelConfig, assignments: Sequence[str]
) -> LanguageModelConfig:
    """The base with the blocks, mixers and sizes of the config, so that swaps in them compare."""
    if not config.blocks and all(memory.path == "rule" for memory in memories(config)):
        return base

    def names_no_part(word: str) -> bool:
        try:
            path = resolve(config, word.partition("=")[0])
        except ConfigError:  # of the run's data or training
            return False
        if not config.blocks:
            return len(path) == 1 and path[0] in ("architecture", "width", "heads")
        return len(path) == 1 or (len(path) == 2 and path[0] == config.mapping)

    of_model = (word.removeprefix("model.") for word in assignments)
    return override(base, *filter(names_no_part, of_model))


def _link(rule: Rule) -> dict[str, object]:
    """The fields of a retention's map: all but those of its decay."""
    decay = {field.name for field in dataclasses.fields(Decaying)}
    return {name: x for name, x in to_dict(rule.retention).items() if name not in decay}


def _with_rates_of(
    config: LanguageModelConfig, other: LanguageModelConfig
) -> LanguageModelConfig | None:
    """The config with the rates of another; None where those are out of range in it."""
    known = {memory.path: memory.rule.algorithm for memory in memories(other)}
    try:
        for path in [memory.path for memory in memories(config)]:
            if path in known:
                config = with_rates(config, path, known[path].lr, known[path].max_lr)
    except ConfigError:
        return None
    return config


def _gives(config: LanguageModelConfig, assignment: str, field: str) -> bool:
    """Whether an assignment of `override` gives a value of a field, also inside a dict."""
    found, text = _read(config, assignment)
    names = resolve(config, field)
    if found == names:
        return True
    if found is None or names[: len(found)] != found:
        return False
    return _holds(text, names[len(found) :])


def _kind_named(assignment: str) -> str | None:
    """The kind that an assignment names, alone or in a dict."""
    text = assignment.partition("=")[2].strip()
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value.get("kind") if isinstance(value, dict) else None


def _holds(text: str, names: Sequence[str]) -> bool:
    """Whether JSON text has a value under nested names."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    for name in names:
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, dict) and name in value:
            value = value[name]
        else:
            return False
    return True


def split_strength(assignments: Sequence[str]) -> tuple[list[str], float | None]:
    """The assignments without `strength=S`, and S.

    Raises:
        ConfigError: S is not a number.
    """
    rest = [word for word in assignments if not _is_strength(word)]
    return rest, next(_targets(word for word in assignments if _is_strength(word)), None)


def _is_strength(assignment: str) -> bool:
    return assignment.partition("=")[0].strip().removeprefix("model.") == STRENGTH


def _targets(assignments: Iterator[str]) -> Iterator[float]:
    for assignment in assignments:
        text = assignment.partition("=")[2].strip()
        try:
            yield float(text)
        except ValueError as error:
            raise ConfigError(
                f"strength={text!r} must be a number in (0, 1), such as 0.05."
            ) from error
