"""The tables that `miras plan` prints: a column a slice."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.table import Table

from miras.analysis.plan.compiled import Compiled
from miras.analysis.plan.kinds import KINDS
from miras.analysis.plan.memory import ERROR, MemoryUse
from miras.analysis.plan.predict import Prediction
from miras.analysis.plan.record import as_dict, replicated
from miras.analysis.plan.search import Candidate, advice

GIB = 2**30


class _Unit(NamedTuple):
    """Of bytes in a table: GiB, or MiB for small runs."""

    name: str
    bytes: int

    def show(self, size: float) -> str:
        return f"{size / self.bytes:.2f}"


def _unit(plans: Sequence[Prediction]) -> _Unit:
    large = max(plan.memory.peak for plan in plans) >= GIB / 2
    return _Unit("GiB", GIB) if large else _Unit("MiB", 2**20)


def table(
    plans: Sequence[Prediction], tokens: int | None = None, prices: Sequence[float | None] = ()
) -> Table:
    """HBM, time and cost of a step, by slice."""
    made = Table(title="A step", title_justify="left", pad_edge=False, box=None)
    made.add_column("", no_wrap=True)
    for plan in plans:
        made.add_column(plan.job.slice.name, justify="right")

    def row(name: str, of: Callable[[Prediction], Any], style: str = "") -> None:
        made.add_row(name, *(str(of(plan)) for plan in plans), style=style)

    unit = _unit(plans)
    row("chips", lambda p: p.job.slice.chips)
    row("mesh", _mesh)
    row("rows a chip x batches a step", lambda p: f"{p.job.rows} x {_accumulate(p)}")
    row("tokens a step", lambda p: f"{p.job.step_tokens:,}")
    made.add_section()
    made.add_row(f"HBM a chip at the peak, {unit.name}", style="bold")
    for name in plans[0].memory._fields:
        row(f"  {name}", lambda p, name=name: unit.show(getattr(p.memory, name)))
    row("  in all", lambda p: unit.show(p.memory.peak), "bold")
    row("  of", lambda p: unit.show(p.job.slice.chip.hbm))
    row("  fits", lambda p: "barely" if p.fits_barely else "yes" if p.fits else "no", "bold")
    made.add_section()
    made.add_row("Time of a step, ms", style="bold")
    parts = {
        "products": "products",
        "HBM, beside products": "hbm",
        "memory kernels": "kernels",
        "links, beside computation": "hidden",
        "links, exposed": "exposed",
    }
    for name, part in parts.items():
        row(f"  {name}", lambda p, part=part: _milliseconds(getattr(p, part)))
    row("  in all", lambda p: _milliseconds(p.step), "bold")
    row("  bound by", lambda p: p.bound)
    made.add_section()
    row("model FLOPs a step", lambda p: f"{p.flops.model:.3g}")
    row("model FLOPs utilisation", lambda p: f"{p.utilisation:.1%}", "bold")
    row("tokens/s", lambda p: f"{p.tokens_per_second:,.0f}")
    row("tokens/s a chip", lambda p: f"{p.tokens_per_second / p.job.slice.chips:,.0f}", "bold")
    if tokens is not None:
        row(f"hours for {short(tokens)} tokens", lambda p: f"{p.hours(tokens):,.1f}")
        row("chip-hours", lambda p: f"{p.hours(tokens) * p.job.slice.chips:,.0f}")
        if any(price is not None for price in prices):
            costs = [
                "" if price is None else f"{plan.hours(tokens) * plan.job.slice.chips * price:,.0f}"
                for plan, price in zip(plans, prices, strict=True)
            ]
            made.add_row("price", *costs)
    return made


def traffic_table(plans: Sequence[Prediction]) -> Table:
    """The collectives of a step, by slice."""
    made = Table(title="Collectives of a step", title_justify="left", box=None, pad_edge=False)
    for name in ("on", "collective", "of", "axis"):
        made.add_column(name)
    unit = _unit(plans)
    for name in ("number", f"{unit.name} a chip", "ms", "overlaps"):
        made.add_column(name, justify="right")
    for plan in plans:
        for n, x in enumerate(plan.traffic):
            name = "" if n else plan.job.slice.name
            size, overlaps = unit.show(x.bytes), "yes" if x.hidden else "no"
            made.add_row(
                name, x.kind, x.what, x.axis, str(x.count), size, _milliseconds(x.seconds), overlaps
            )
    return made


def compiled_table(plans: Sequence[Prediction], found: Sequence[Compiled]) -> Table:
    """HBM of the compiled steps by kind beside the analytic figures, and their collectives."""
    made = Table(title="Compiled", title_justify="left", box=None, pad_edge=False)
    made.add_column("", no_wrap=True)
    for plan in plans:
        made.add_column(plan.job.slice.name, justify="right")

    def row(name: str, of: Callable[[Prediction, Compiled], str], style: str = "") -> None:
        cells = ("" if x.error else of(plan, x) for plan, x in zip(plans, found, strict=True))
        made.add_row(name, *cells, style=style)

    unit = _unit(plans)
    made.add_row(f"HBM a chip at the peak, {unit.name} (analytic)", style="bold")
    for kind in KINDS:
        row(f"  {kind}", lambda p, x, kind=kind: _beside(unit, x.kinds[kind], p.memory, kind))
    row("  in all", lambda p, x: f"{unit.show(x.peak)} ({unit.show(p.memory.peak)})", "bold")
    row("  fits", lambda p, x: "yes" if x.peak <= p.job.slice.chip.hbm else "no", "bold")
    made.add_section()
    made.add_row(f"Collectives: number, {unit.name} a chip", style="bold")
    names = {(c["in_layers"], c["kind"]): None for x in found for c in x.collectives}
    for in_layers, kind in sorted(names):
        where = "in the layers" if in_layers else "outside"
        row(f"  {kind}, {where}", lambda _, x, key=(in_layers, kind): _collectives(unit, x, key))
    made.add_section()
    if any(plan.fitted is not None for plan in plans):
        row("memory kernels, ms (by the fit)", lambda p, _: _kernels(p))
    row("seconds to compile", lambda _, x: f"{x.seconds:.0f}")
    return made


def _kernels(plan: Prediction) -> str:
    if plan.fitted is None:
        return ""
    return f"{_milliseconds(plan.kernels)} ({_milliseconds(plan.fitted)})"


def _beside(unit: _Unit, size: int, memory: MemoryUse, kind: str) -> str:
    analytic = getattr(memory, kind, None)
    return unit.show(size) + ("" if analytic is None else f" ({unit.show(analytic)})")


def _collectives(unit: _Unit, found: Compiled, key: tuple[bool, str]) -> str:
    for x in found.collectives:
        if (x["in_layers"], x["kind"]) == key:
            return f"{x['count']}, {unit.show(x['bytes'])}"
    return ""


def flops_table(plan: Prediction) -> Table:
    """Model FLOPs of a step by part."""
    made = Table(title="FLOPs of a step, forward", title_justify="left", box=None, pad_edge=False)
    made.add_column("part")
    made.add_column("FLOPs", justify="right")
    made.add_column("share", justify="right")
    parts = as_dict(plan)["flops"]
    names = {"update": "memory: update", "read": "memory: read", "channels": "channel mixers"}
    for part in ("logits", "projections", "channels", "attention", "update", "read"):
        if parts[part]:
            share = parts[part] / plan.flops.forward
            made.add_row(names.get(part, part), f"{parts[part]:.3g}", f"{share:.0%}")
    return made


def search_table(found: Sequence[Candidate]) -> Table:
    """Every candidate and its verdict, the best first."""
    made = Table(
        title="Candidates, the fastest that fits first",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("rows", "batches", "data", "fsdp", "tensor"):
        made.add_column(name, justify="right")
    made.add_column("remat")
    for name in ("ms", "GiB"):
        made.add_column(name, justify="right")
    made.add_column("verdict")
    for candidate in found:
        plan, config = candidate.prediction, candidate.config
        mesh = config.mesh
        time = "" if plan is None else _milliseconds(plan.step)
        peak = "" if plan is None else f"{plan.memory.peak / GIB:.1f}"
        sizes = (config.data.batch, config.train.accumulate, mesh.data, mesh.fsdp, mesh.tensor)
        made.add_row(*map(str, sizes), candidate.remat, time, peak, candidate.verdict)
    return made


def notes(plans: Sequence[Prediction]) -> list[str]:
    """What does not fit and what to change, what is replicated, and what is assumed."""
    lines = []
    for plan in plans:
        name = plan.job.slice.name
        if not plan.fits:
            lines.append(f"{name}: does not fit; {advice(plan)}.")
        elif plan.fits_barely:
            lines.append(
                f"{name}: fits by less than the {ERROR:.0%} by which the estimate may be "
                f"wrong: compile it, or use {advice(plan)}."
            )
        if plan.job.slice.chips > 1:
            size, largest = replicated(plan)
            lines.append(
                f"{name}: {size / 2**20:.2g} MiB of the state are whole on every chip, most of all "
                f"{largest}."
            )
    assumed = dict.fromkeys(text for plan in plans for text in plan.assumptions)
    return [*lines, "Assumed:", *(f"  {text}" for text in assumed)]


def short(number: float) -> str:
    """A number as in 100B, 1.3B or 500M."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.4g}{letter}"
    return f"{number:.4g}"


def heading(plan: Prediction) -> str:
    """The model of a plan, in a line."""
    model = plan.job.config.model
    return (
        f"{short(plan.job.parameters)} parameters, {model.layers} layers of {model.width}, "
        f"{model.heads} heads, {model.dtype}, rows of {plan.job.config.data.sequence} tokens, "
        f"remat={plan.job.remat}"
    )


def _mesh(plan: Prediction) -> str:
    sizes = {name: size for name, size in plan.job.sizes.items() if size > 1}
    return " ".join(f"{name}={size}" for name, size in sizes.items()) or "one chip"


def _accumulate(plan: Prediction) -> int:
    return plan.job.config.train.accumulate


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds < 1 else f"{1e3 * seconds:,.0f}"
