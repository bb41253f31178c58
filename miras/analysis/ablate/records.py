"""Results for programs: JSON lines of runs, CSV files of cells and effects."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from miras.analysis.ablate.estimate import Estimate
from miras.analysis.ablate.grid import AblationGrid, GridRun
from miras.analysis.ablate.outcome import Outcome
from miras.analysis.ablate.paired import Difference
from miras.analysis.ablate.results import GridResults, Row
from miras.config import config_hash

_COSTS = (
    *("parameters", "state_bytes", "inner_rate", "write_strength", "flops_per_token"),
    *("flops_per_step", "flops", "tokens"),
)


def jsonl(grid: AblationGrid, outcomes: Mapping[GridRun, Outcome]) -> str:
    """One line for every finished run, in the grid's order."""
    lines = []
    for run in grid.runs:
        if (outcome := outcomes.get(run)) is None:
            continue
        line = {
            "cell": run.name,
            "seed": run.seed,
            "assignments": grid.cells[run.cell].levels | grid.fixed,
            "status": outcome.status,
            "bits_per_byte": outcome.bits_per_byte,
            "accuracy": outcome.accuracy,
            "scores": outcome.scores,
            "steps": outcome.steps,
            "seconds": outcome.seconds,
            "resumed_from": outcome.resumed_from,
            "parameters": outcome.parameters,
            "tokens_per_second": outcome.tokens_per_second,
            "model_flops_utilization": outcome.utilization,
            "config_hash": config_hash(run.config),
            "folder": f"runs/{run.slug}",
            "reason": outcome.reason,
        }
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines)


def table_csv(results: GridResults) -> str:
    """Every cell, legal or illegal, with one column per axis."""
    grid = results.grid
    names = [
        *("rank", "cell", *grid.axes, "status", "difference", "difference_half_interval"),
        *("difference_seeds", "p", "p_holm", results.metric.field, "half_interval"),
        *("behind_best", "behind_half_interval", "seeds_done", "seeds", *_COSTS),
        *("tokens_per_second", "model_flops_utilization", "seconds_per_run", "reason"),
    ]
    lines: list[list[Any]] = [names]
    for row in results.rows:
        reasons = [f"seed {run.seed}: {reason}" for run, reason in results.unfinished(row)]
        lines.append(
            [
                *(row.rank, row.cell.name, *row.cell.levels.values()),
                *("incomplete" if row.rank is None else "done", *_difference(row.difference)),
                *(*_pair(row.score), *_pair(row.gap), len(row.values), grid.seeds, *_costs(row)),
                *(row.tokens_per_second, row.utilization, row.seconds, "; ".join(reasons)),
            ]
        )
    for cell in grid.illegal:
        empty = [None] * 9
        levels = cell.levels.values()
        costs = [None] * (len(_COSTS) + 3)
        lines.append(
            [None, cell.name, *levels, "illegal", *empty, 0, grid.seeds, *costs, cell.reason]
        )
    return _csv(lines)


def effects_csv(results: GridResults) -> str:
    """The effect of every level of every axis."""
    lines: list[list[Any]] = [
        ["axis", "level", "cells", "adjusted_mean", "effect", "effect_half_interval"]
    ]
    for effect in results.effects:
        mean = results.adjusted(effect)
        lines.append([effect.axis, effect.level, effect.cells, mean, *_pair(effect.effect)])
    return _csv(lines)


def _pair(found: Estimate | None) -> tuple[float | None, float | None]:
    return (None, None) if found is None else (found.mean, found.half)


def _costs(row: Row) -> tuple[Any, ...]:
    """The values of `_COSTS`; of several memories, separated by spaces."""
    found = row.costs
    if found is None:
        return (row.parameters, *[None] * (len(_COSTS) - 1))
    return (
        found.parameters,
        found.state_bytes,
        " ".join(repr(rate.lr) for rate in found.rates),
        " ".join("" if rate.strength is None else repr(rate.strength) for rate in found.rates),
        found.token_flops,
        found.step_flops,
        found.flops,
        found.tokens,
    )


def _difference(found: Difference | None) -> tuple[float | None, ...]:
    if found is None:
        return (None,) * 5
    return (*_pair(found.estimate), found.seeds, found.p, found.holm)


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()
