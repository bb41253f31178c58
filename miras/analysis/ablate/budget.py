"""Cells of equal size or equal training: what to change in a cell so that it matches the base.

    params   the hidden width of the channel mixers, and the width where that is not enough, within
             2 % of the base's parameters
    state    the hidden width of an MLP memory, the heads, or the width, within 5 % of the base's
             bytes of state at the end of a row
    flops    `train.steps`, so that the run has the base's model FLOPs within 2 %
    tokens   `train.steps`, so that the run reads the base's tokens within 2 %

The rest of the cell stays as it is, and is not matched. Sizes come in steps (a width is a multiple
of the heads), hence the tolerances. A field that the grid varies is not changed.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal, get_args

from miras.analysis.ablate.cell_costs import parameters, state_bytes
from miras.config import override, require
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.train import RunConfig

Budget = Literal["flops", "params", "state", "tokens"]
BUDGETS: tuple[Budget, ...] = get_args(Budget)
TOLERANCE: dict[Budget, float] = {"flops": 0.02, "params": 0.02, "state": 0.05, "tokens": 0.02}
NAMES = {
    "flops": "FLOPs", "params": "parameters", "state": "bytes of state", "tokens": "tokens",
}  # fmt: skip
_WIDEST = 16  # times the width of a cell, the largest that is tried


def changes(
    config: "RunConfig", base: "RunConfig", budget: Budget, varied: Collection[str] = ()
) -> tuple[str, ...]:
    """The assignments that bring a cell to the budget of the base.

    None if it is there; steps are changed also within the tolerance, sizes are not.

    Args:
        config: of the cell.
        base: the run to match.
        budget: what to match.
        varied: paths of the fields that the grid varies.

    Raises:
        ConfigError: nothing that may be changed brings the cell within the tolerance.
    """
    wanted, found = amount(base, budget), amount(config, budget)
    by_size = budget in ("params", "state")
    if found == wanted or (by_size and off(found, wanted, budget) <= 1):
        return ()
    fields = {path.rpartition(".")[2] for path in varied}
    if budget in ("flops", "tokens"):
        made = _steps(config, wanted / found, fields)
    elif budget == "params":
        made = _parameters(config, int(wanted), fields)
    else:
        made = _state(config, wanted, fields)
    if made is not None and off(amount(override(config, *made), budget), wanted, budget) <= 1:
        return made
    if off(found, wanted, budget) <= 1:
        return ()
    percent = f"{100 * TOLERANCE[budget]:g} %"
    raise ConfigError(
        f"no {_FIELDS[budget]} gives this cell the {NAMES[budget]} of the base, {wanted:,.0f}, to "
        f"within {percent}; it has {found:,.0f}: leave the cell out, change a size "
        "such as heads or layers, or give another --budget."
    )


@functools.lru_cache(maxsize=256)
def amount(config: "RunConfig", budget: Budget) -> float:
    """What a run has of a budget: FLOPs, parameters, bytes or tokens; as in `cell_costs`."""
    from miras.analysis.utilization import model_flops

    train, data = config.train, config.data
    if budget == "flops":
        return model_flops(config) * train.steps
    if budget == "tokens":
        return data.batch * data.sequence * train.accumulate * train.steps
    return parameters(config) if budget == "params" else state_bytes(config)


def off(found: float, wanted: float, budget: Budget) -> float:
    """The relative difference of two amounts, in tolerances of the budget."""
    return abs(found - wanted) / max(wanted, 1) / TOLERANCE[budget]


_FIELDS = {
    "flops": "number of steps",
    "tokens": "number of steps",
    "params": "mlp_ratio or width",
    "state": "memory.hidden, heads or width",
}


def _steps(config: "RunConfig", factor: float, varied: Collection[str]) -> tuple[str, ...] | None:
    require(
        "steps" not in varied,
        "train.steps is an axis, and this --budget sets it: leave one of the two out.",
    )
    steps = round(config.train.steps * factor)
    return (f"train.steps={steps}",) if steps >= 1 else None


def _parameters(
    config: "RunConfig", wanted: int, varied: Collection[str]
) -> tuple[str, ...] | None:
    from miras.analysis.match import match

    for fixed in (True, False):
        if "mlp_ratio" in varied or (not fixed and "width" in varied):
            continue
        try:
            found = match(
                config.model,
                wanted,
                fixed_width=fixed,
                tolerance=TOLERANCE["params"],
                count=lambda model: parameters(dataclasses.replace(config, model=model)),
            )
        except ConfigError:
            continue
        width = () if fixed else (f"model.width={found.width}",)
        return (*width, f"model.mlp_ratio={found.mlp_ratio!r}")
    return None


def _state(config: "RunConfig", wanted: float, varied: Collection[str]) -> tuple[str, ...] | None:
    """The first kind of change within the tolerance; each is the nearest of its kind."""
    for candidates in (_hidden, _heads, _width):
        found = [
            (off(size, wanted, "state"), words)
            for words, size in candidates(config, wanted, varied)
        ]
        if found and min(found)[0] <= 1:
            return min(found)[1]
    return None


_Sized = Iterator[tuple[tuple[str, ...], float]]


def _hidden(config: "RunConfig", wanted: float, varied: Collection[str]) -> _Sized:
    """The hidden width of the memory, if it has one, in which the state is linear."""
    if {"hidden", "expansion"} & set(varied):
        return
    at = functools.partial(_sized, config)
    small, large = at("model.rule.memory.hidden=8"), at("model.rule.memory.hidden=16")
    if small is None or large is None or large <= small:
        return
    middle = round(8 + 8 * (wanted - small) / (large - small))
    for hidden in (middle, 8 * round(middle / 8)):
        words = (f"model.rule.memory.hidden={hidden}",)
        size = at(*words) if hidden >= 1 else None
        if size is not None:
            yield words, size


def _heads(config: "RunConfig", wanted: float, varied: Collection[str]) -> _Sized:
    """The heads that divide the width; a state of matrices is inversely proportional to them."""
    del wanted
    width = config.model.width
    for heads in range(1, width // 4 + 1):
        if width % heads or heads == config.model.heads or "heads" in varied:
            continue
        words = (f"model.heads={heads}",)
        size = _sized(config, *words)
        if size is not None:
            yield words, size


def _width(config: "RunConfig", wanted: float, varied: Collection[str]) -> _Sized:
    """The widths on both sides of the size, by bisection.

    They are multiples of 8 channels a head or, if these are too coarse, of 2 or of 1.
    """
    if "width" in varied:
        return
    for step in (n * config.model.heads for n in (8, 2, 1)):
        found = list(_widths(config, wanted, step))
        yield from found
        if any(off(size, wanted, "state") <= 1 for _, size in found):
            return


def _widths(config: "RunConfig", wanted: float, step: int) -> _Sized:
    low, high = 0, _WIDEST * config.model.width // step
    while high - low > 1:
        middle = (low + high) // 2
        size = _sized(config, f"model.width={middle * step}")
        if size is None:
            return
        low, high = (middle, high) if size <= wanted else (low, middle)
    for n in (low, high):
        words = (f"model.width={n * step}",)
        size = _sized(config, *words) if n else None
        if size is not None:
            yield words, size


def _sized(config: "RunConfig", *words: str) -> float | None:
    """The bytes of state with some assignments; None where they are not legal."""
    try:
        return state_bytes(override(config, *words))
    except ConfigError:
        return None
