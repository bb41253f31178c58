"""Sweeps of a rate within each cell, so that each is shown at its own best rate.

Two rates are swept: `algorithm.lr`, of the memories, and `train.learning_rate`, of the outer
optimiser. A value such as 0.5x is a multiple of the cell's own rate, which for `algorithm.lr` is
the matched one; a value such as 0.01 is the rate itself. `max_lr` moves by the factor of `lr`.
`best_rates` chooses among the rates.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from miras.analysis.ablate.grid import PRESET, GridCell, IllegalCell, SweptRate
from miras.config import override, require
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.train import RunConfig

INNER, OUTER = "algorithm.lr", "train.learning_rate"
_NAMES = {
    "learning_rate": OUTER,
    **dict.fromkeys(("optim.lr", "rule.algorithm.lr", "model.algorithm.lr"), INNER),
}


class RateSweep(NamedTuple):
    """The rates to try in every cell.

    Attributes:
        path: `INNER` or `OUTER`.
        values: as given, such as "0.5x" or "0.01".
    """

    path: str
    values: tuple[str, ...]


def parse_rates(words: Sequence[str]) -> tuple[RateSweep, ...]:
    """Sweeps from words such as "algorithm.lr=0.5x,1x,2x".

    Raises:
        ConfigError: another field, a field given twice, fewer than two values, or one that is not
            a positive number or multiple.
    """
    made: dict[str, RateSweep] = {}
    for word in words:
        path, _, text = (part.strip() for part in word.partition("="))
        path = _NAMES.get(path, path)
        require(
            path in (INNER, OUTER),
            f"{word!r} is not the sweep of a rate: give {INNER}=0.5x,1x,2x or {OUTER}=1e-3,3e-3.",
        )
        require(path not in made, f"{path} is swept twice: give all its values in one list.")
        values = tuple(value.strip() for value in text.split(","))
        for value in values:
            _amount(path, value)
        require(
            len(values) > 1 and len(set(values)) == len(values),
            f"{word!r} needs two values or more, all different, as in {path}=0.5x,1x,2x.",
        )
        made[path] = RateSweep(path, values)
    return tuple(made.values())


def at_rates(cell: GridCell, sweeps: Sequence[RateSweep]) -> Iterator[GridCell | IllegalCell]:
    """The cell at every combination of the rates.

    A model without memories that are written at a rate has no inner rate to sweep.
    """
    sweeps = [sweep for sweep in sweeps if sweep.path == OUTER or _has_inner(cell.config)]
    for values in itertools.product(*(sweep.values for sweep in sweeps)):
        texts = {sweep.path: value for sweep, value in zip(sweeps, values)}
        parts = [] if cell.name == PRESET else [cell.name]
        name = ", ".join([*parts, *(f"{path}={text}" for path, text in texts.items())])
        config, rates = cell.config, []
        try:
            for path, text in texts.items():
                config, rate = _with_rate(config, path, text)
                rates.append(SweptRate(path, text, rate))
        except ConfigError as error:
            yield IllegalCell(name, cell.levels, " ".join(str(error).split()))
        else:
            yield dataclasses.replace(
                cell, name=name or cell.name, config=config, rates=tuple(rates)
            )


def _amount(path: str, text: str) -> tuple[float, bool]:
    """The number of a value, and whether it is a multiple."""
    digits = text.removesuffix("x")
    try:
        number = float(digits)
    except ValueError:
        number = math.nan
    require(
        0 < number < math.inf,
        f"{path}={text!r} is not a rate: give a positive number such as 0.01, or a multiple of the "
        "cell's own rate such as 0.5x.",
    )
    return number, text.endswith("x")


def _has_inner(config: "RunConfig") -> bool:
    from miras.analysis.strength.memories import memories

    return any(True for _ in memories(config.model))


def _with_rate(config: "RunConfig", path: str, text: str) -> "tuple[RunConfig, float]":
    """The config with a rate, and the rate; of several memories, the first one's."""
    from miras.analysis.strength.match import with_rates
    from miras.analysis.strength.memories import memories

    number, multiple = _amount(path, text)
    if path == OUTER:
        rate = _digits(number * config.train.learning_rate if multiple else number)
        return override(config, f"train.learning_rate={rate!r}"), rate
    model, rates = config.model, []
    for memory in memories(model):
        own = memory.rule.algorithm
        factor = number if multiple else number / own.lr
        rates.append(_digits(own.lr * factor))
        model = with_rates(model, memory.path, rates[-1], _digits(own.max_lr * factor))
    return dataclasses.replace(config, model=model), rates[0]


def _digits(rate: float) -> float:
    """Six digits, so that a rate is the same on all machines."""
    return float(f"{rate:.6g}")
