"""The measurements as a table for people and as JSON for programs."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from rich.table import Table

from miras.analysis.staleness.measure import SettingResult
from miras.analysis.staleness.plan import ONLINE, ChunkSetting, Setting, StalenessPlan
from miras.analysis.staleness.text import HeldOutText
from miras.config import to_dict
from miras.models import LanguageModelConfig

_MAGNIFIED = 1e-3  # rounding stays below it unless the memory amplifies differences


class StalenessReport(NamedTuple):
    """A measurement and its context.

    Attributes:
        name: the preset, or the run's folder.
        step: number of updates of the parameters; 0 for a new model.
        trained_on: tokens per row in training; None for a new model.
        command: repeats the measurement.
        source: `data.source`.
        config: of the model.
        plan: the settings.
        text: the held-out text.
        results: by setting.
    """

    name: str
    step: int
    trained_on: int | None
    command: str
    source: str
    config: LanguageModelConfig
    plan: StalenessPlan
    text: HeldOutText
    results: dict[Setting, SettingResult]

    def columns(self) -> list[tuple[str, Callable[[int], ChunkSetting]]]:
        """The grid's columns: a name, and the setting for each chunk."""
        made = [
            (f"refine {refine}", lambda chunk, refine=refine: ChunkSetting(chunk, refine))
            for refine in self.plan.refines
        ]
        return [*made, ("exact", lambda chunk: ChunkSetting(chunk, exact=True))][
            : len(made) + self.plan.exact
        ]

    def rounding(self) -> float:
        """The distance due to float32 rounding: the largest of those that are 0 by definition."""
        same = [c.distance for s, c in self.results.items() if s.is_online]
        return max(filter(math.isfinite, same), default=0.0) or 1e-6

    def time(self, cell: SettingResult) -> float:
        """Time per token relative to the model's own setting."""
        return cell.seconds_per_token / self.results[self.plan.own].seconds_per_token


def table(report: StalenessReport) -> Table:
    """Chunks by refinements, with a block of rows for each of distance, bits per byte and time."""
    columns = report.columns()
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    made.add_column("", no_wrap=True)
    made.add_column("chunk", justify="right")
    for name, _ in columns:
        made.add_column(name, justify="right", no_wrap=True)
    kinds: list[tuple[str, Callable[[SettingResult], str]]] = [
        ("distance to online", lambda cell: _short(cell.distance)),
        ("bits per byte", lambda cell: _fixed(cell.bits_per_byte, 4)),
        ("time per token", lambda cell: _fixed(report.time(cell), 2)),
    ]
    for kind, show in kinds:
        for n, chunk in enumerate(report.plan.chunks):
            values = []
            for _, setting in columns:
                cell = report.results.get(setting(chunk))
                mark = "*" if cell is not None and cell.setting == report.plan.own else " "
                values.append("· " if cell is None else show(cell) + mark)
            made.add_row("" if n else kind, str(chunk), *values)
        made.add_row()
    return made


def heading(report: StalenessReport) -> str:
    """The model and the text."""
    model = f"trained for {report.step} steps" if report.step else "untrained"
    text = f"{report.text.rows} x {report.text.length:,} tokens of held-out text"
    if report.trained_on is not None:
        text += f" (trained on rows of {report.trained_on:,})"
    return f"{report.name}, {model}; {text} from {report.source}"


def notes(report: StalenessReport) -> Iterator[str]:
    """Explanations of the table, and what it leaves out."""
    plan, own = report.plan, report.results[report.plan.own]
    online = report.results[ONLINE]
    yield (
        "distance to online: ||y - y_online|| / ||y_online|| of the memories' outputs on equal "
        "layer inputs, mean over layers with a memory; time: forward pass, relative to the "
        "model's own setting."
    )
    yield (
        f"* the model's own setting, {plan.own}: {_short(own.distance)} from online, "
        f"{_fixed(own.bits_per_byte, 4)} bits per byte (online: "
        f"{_fixed(online.bits_per_byte, 4)})."
    )
    if any(ChunkSetting(c, r) not in plan.grid for c in plan.chunks for r in plan.refines):
        yield "· not measured: refine = chunk - 1 already equals the online rule."
    same = next((s for s in plan.grid if s.is_online and s != ONLINE), None)
    if same is not None:
        yield (
            f"float32 rounding alone gives {_short(report.rounding())}, as measured at {same}, "
            "which is online by definition."
        )
        if report.rounding() > _MAGNIFIED:
            yield (
                "float32 rounds at 1e-7, so this model amplifies small differences from token to "
                "token, as a discontinuous bias does (the sign in huber's mixture): more sweeps "
                "reduce the distance slowly, and a distance near that of rounding only shows that "
                "the two memories have diverged."
            )
    if plan.left_out:
        yield f"left out: refine {', '.join(map(str, plan.left_out))}: {plan.reason}"
    if plan.chunks_left_out:
        chunks = ", ".join(map(str, plan.chunks_left_out))
        yield f"left out: chunk {chunks}: {plan.reason_of_chunks}"
    if plan.exact:
        yield (
            "exact=True computes the online rule in closed form: its distance is 0 up to rounding "
            "for any chunk, which then is only the size of a tile."
        )


def as_json(report: StalenessReport) -> dict[str, Any]:
    """The report as JSON values, with the distance of each layer; null if not finite."""
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
        "own": plan.own.fields,
        "left_out": {
            "refine": list(plan.left_out),
            "reason": plan.reason,
            "chunk": list(plan.chunks_left_out),
            "reason_of_chunks": plan.reason_of_chunks,
        },
        "exact_is_possible": plan.exact,
        "cells": [
            {
                **setting.fields,
                "distance": _finite(cell.distance),
                "distance_by_layer": [_finite(d) for d in cell.by_layer],
                "bits_per_byte": _finite(cell.bits_per_byte),
                "time_over_own": round(report.time(cell), 3),
            }
            for setting, cell in report.results.items()
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
