"""What was measured, as a table for people and as JSON for programs."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from rich.table import Table

from miras.analysis.staleness.measure import Cell
from miras.analysis.staleness.plan import ONLINE, Plan, Setting
from miras.analysis.staleness.text import Text
from miras.config import to_dict
from miras.models import LanguageModelConfig

_MAGNIFIED = 1e-3  # a distance that rounding does not reach in a memory that contracts


class Report(NamedTuple):
    """All that is told of one measurement.

    Attributes:
        name: the preset, or the run's folder.
        step: updates that the parameters have seen; 0 for a new model.
        trained_on: tokens in a row that the model was trained on; None for a new model.
        command: that which makes the report again.
        source: `data.source`.
        config: the model.
        plan: what was to be measured.
        text: on what.
        cells: what was found.
    """

    name: str
    step: int
    trained_on: int | None
    command: str
    source: str
    config: LanguageModelConfig
    plan: Plan
    text: Text
    cells: dict[Setting, Cell]

    def columns(self) -> list[tuple[str, Callable[[int], Setting]]]:
        """The grid's columns: a name, and the setting of each chunk."""
        made = [
            (f"refine {refine}", lambda chunk, refine=refine: Setting(chunk, refine))
            for refine in self.plan.refines
        ]
        return [*made, ("exact", lambda chunk: Setting(chunk, exact=True))][
            : len(made) + self.plan.exact
        ]

    def rounding(self) -> float:
        """The distance that float32 alone makes: the largest where it is 0 by definition."""
        same = [c.distance for s, c in self.cells.items() if s.is_online]
        return max(filter(math.isfinite, same), default=0.0) or 1e-6

    def time(self, cell: Cell) -> float:
        """Time per token over that of the model's own setting."""
        return cell.seconds_per_token / self.cells[self.plan.own].seconds_per_token


def table(report: Report) -> Table:
    """Chunks by refinements: distance, bits per byte and time, one block of rows each."""
    columns = report.columns()
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    made.add_column("", no_wrap=True)
    made.add_column("chunk", justify="right")
    for name, _ in columns:
        made.add_column(name, justify="right", no_wrap=True)
    kinds: list[tuple[str, Callable[[Cell], str]]] = [
        ("distance to online", lambda cell: _short(cell.distance)),
        ("bits per byte", lambda cell: _fixed(cell.bits_per_byte, 4)),
        ("time per token", lambda cell: _fixed(report.time(cell), 2)),
    ]
    for kind, show in kinds:
        for n, chunk in enumerate(report.plan.chunks):
            values = []
            for _, setting in columns:
                cell = report.cells.get(setting(chunk))
                mark = "*" if cell is not None and cell.setting == report.plan.own else " "
                values.append("· " if cell is None else show(cell) + mark)
            made.add_row("" if n else kind, str(chunk), *values)
        made.add_row()
    return made


def heading(report: Report) -> str:
    """What was measured on what."""
    model = f"trained for {report.step} steps" if report.step else "untrained"
    text = f"{report.text.rows} x {report.text.length:,} tokens of held-out text"
    if report.trained_on is not None:
        text += f" (trained on rows of {report.trained_on:,})"
    return f"{report.name}, {model}; {text} from {report.source}"


def notes(report: Report) -> Iterator[str]:
    """How to read the table, and what is not in it."""
    plan, own = report.plan, report.cells[report.plan.own]
    online = report.cells[ONLINE]
    yield (
        "distance to online: ||y - y_online|| / ||y_online|| of the memories' outputs on equal "
        "layer inputs, mean over layers; time: forward pass, over that of the model's own setting."
    )
    yield (
        f"* the model's own setting, {plan.own}: {_short(own.distance)} from online, "
        f"{_fixed(own.bits_per_byte, 4)} bits per byte (online: "
        f"{_fixed(online.bits_per_byte, 4)})."
    )
    if any(Setting(c, r) not in plan.grid for c in plan.chunks for r in plan.refines):
        yield "· nothing new: refine = chunk - 1 is the online rule already."
    same = next((s for s in plan.grid if s.is_online and s != ONLINE), None)
    if same is not None:
        yield (
            f"rounding to float32 alone makes {_short(report.rounding())}, as {same} shows, which "
            "is online by definition."
        )
        if report.rounding() > _MAGNIFIED:
            yield (
                "float32 itself rounds at 1e-7, so this model magnifies small differences from "
                "token to token, as a bias with a jump does (the sign in huber's mixture): sweeps "
                "lessen the distance slowly, and one near that of rounding says only that two "
                "memories have parted."
            )
    if plan.left_out:
        yield f"left out: refine {', '.join(map(str, plan.left_out))}: {plan.reason}"
    if plan.exact:
        yield (
            "exact=True is the online rule in closed form: distance 0, up to rounding, at any "
            "chunk, which is then a size of tiles and no part of the model."
        )


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain JSON values, with the figures of each layer; null where not finite."""
    plan = report.plan
    return {
        "command": report.command,
        "model": report.name,
        "step": report.step,
        "text": {
            "source": report.source,
            "rows": report.text.rows,
            "length": report.text.length,
            "trained_on_length": report.trained_on,
        },
        "device": jax.devices()[0].device_kind,
        "own": plan.own._asdict(),
        "left_out": {"refine": list(plan.left_out), "reason": plan.reason},
        "exact_is_possible": plan.exact,
        "cells": [
            {
                **setting._asdict(),
                "distance": _finite(cell.distance),
                "distance_by_layer": [_finite(d) for d in cell.by_layer],
                "bits_per_byte": _finite(cell.bits_per_byte),
                "time_over_own": round(report.time(cell), 3),
            }
            for setting, cell in report.cells.items()
        ],
        "config": to_dict(report.config),
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _fixed(number: float, digits: int) -> str:
    return f"{number:.{digits}f}" if math.isfinite(number) else "diverges"


def _short(number: float) -> str:
    if number == 0:
        return "0"
    if not math.isfinite(number):
        return "diverges"
    return f"{number:.1e}" if number < 1e-4 else f"{number:#.2g}".rstrip(".")
