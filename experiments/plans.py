"""What the presets need and how fast they are on slices of TPUs, by `miras plan`.

Command:   python -m experiments.plans                  (analytic plans that are missing, into
           results/plans.json, .md and .png), or with --compile to compile one slice a size, too
Cost:      analytic: about three minutes on 2 cores; compiled: one to ten minutes a row.
Shows:     per preset and size (width, layers and heads of 170M, 340M, 760M and 1.3B models), in
           bfloat16 with chunks of 64, rows of 4096 tokens, a vocabulary of 32,000 and 0.5M tokens a
           step: the mesh, HBM of a chip at the peak, what bounds a step, model FLOPs utilisation,
           tokens/s a chip and chip-hours for 15B tokens. The figure: tokens/s a chip of 340M models
           on v5p-128 over the depth of the memory, the chunk and the context, for which mesh.seq is
           the fastest that fits.
Expected:  all but MAC at 760M and 1.3B on v5e-16 fit; Transformer++ slows down with the context,
           and memories do not.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results" / "plans.json"
PRESETS = ("yaad", "moneta", "memora", "titans_mac", "gated_deltanet", "transformer++")
SIZES = {  # layers, width, heads
    "170M": (12, 768, 12),
    "340M": (24, 1024, 16),
    "760M": (24, 1536, 16),
    "1.3B": (24, 2048, 32),
}
SLICES = ("v5e-16", "v5e-256", "v6e-64", "v5p-128")
COMPILED = {"170M": "v5e-16", "340M": "v5e-16", "760M": "v6e-64", "1.3B": "v5e-256"}
TOKENS = 15e9
RUN = ("vocab=32000", "chunk=64", "data.sequence=4096", "dtype=bfloat16")
STEP = 524288
TITLE = f"""# Plans of the presets

`python -m experiments.plans`; bfloat16, chunks of 64, rows of 4096 tokens, a vocabulary of 32,000,
0.5M tokens a step. Analytic, without a chip; "compiled" is the peak by the TPU's compiler, where
it was asked, and "by schedule" the time with the compiled schedules of the step's own kernels.
Chip-hours are for {TOKENS / 1e9:.0f}B tokens. What is assumed: docs/plan.md.

"""


class Case(NamedTuple):
    """One row."""

    preset: str
    size: str
    slice: str


def key(case: Case) -> str:
    """A row's name in the results."""
    return ", ".join(case)


CASES = tuple(Case(p, size, on) for size in SIZES for p in PRESETS for on in SLICES)


def job_of(case: Case, *changes: str, step: int = STEP) -> Any:
    """The job of a row, with changes."""
    from miras.analysis.plan.fitting import fitted
    from miras.analysis.plan.job import Job
    from miras.analysis.plan.slices import planned_slice
    from miras.cli.runs import run_config

    layers, width, heads = SIZES[case.size]
    sizes = (f"layers={layers}", f"width={width}", f"heads={heads}")
    config = run_config(case.preset, [*RUN, *sizes, *changes], None, rates="raw")
    on = planned_slice(case.slice)
    return Job(fitted(config, on, step, mesh_given=False), on)


def measure(case: Case) -> dict[str, Any]:
    """An analytic row."""
    from miras.analysis.plan.predict import predict
    from miras.analysis.plan.record import as_dict

    found = as_dict(predict(job_of(case)), round(TOKENS))
    return {name: value for name, value in found.items() if name not in ("assumptions", "traffic")}


def compile_row(case: Case) -> dict[str, Any]:
    """What the compiler says of a row, and seconds of a step with its kernels' schedules."""
    from miras.analysis.plan.compiled import compiled
    from miras.analysis.plan.predict import predict
    from miras.analysis.plan.scheduled import scheduled

    job = job_of(case)
    found = compiled(job)
    plan = scheduled(predict(job), found)
    told = {} if plan.fitted is None else {"kernel_seconds": plan.kernels, "step": plan.step}
    return found._asdict() | told


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows as Markdown."""
    heads = ("preset", "size", "slice", "parameters", "mesh", "peak, GiB", "compiled", "fits")
    heads += (
        "kernels, ms",
        "by schedule",
        "step, ms",
        "by schedule",
        "bound by",
        "utilisation",
        "tokens/s a chip",
        "chip-hours",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        mesh = " x ".join(f"{axis}={size}" for axis, size in row["mesh"].items() if size > 1)
        compiled = row.get("compiled")
        cells = [
            *name.split(", "),
            f"{row['parameters'] / 1e6:,.0f}M",
            mesh,
            f"{row['memory']['peak'] / 2**30:.2f}",
            "" if compiled is None else compiled["error"] or f"{compiled['peak'] / 2**30:.2f}",
            "yes" if row["fits"] else "no",
            *_both(row, "kernels", "kernel_seconds"),
            *_both(row, "step", "step"),
            row["bound"],
            f"{row['utilisation']:.0%}",
            f"{row['tokens_per_second_per_chip']:,.0f}",
            f"{row['training']['chip_hours']:,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _both(row: dict[str, Any], analytic: str, scheduled: str) -> tuple[str, str]:
    """Milliseconds by the fit of kernels, and by their schedules where the compiler was asked."""
    found = (row.get("compiled") or {}).get(scheduled)
    fit = f"{1e3 * row['seconds'][analytic]:,.0f}"
    return fit, "" if found is None else f"{1e3 * found:,.0f}"


def speeds() -> dict[str, dict[str, dict[str, float]]]:
    """Tokens/s a chip of 340M models on v5p-128, by what changes."""
    depths = {str(n): _speed("yaad", f"memory.depth={n}") for n in (1, 2, 3, 4)}
    chunks = {str(n): _speed("yaad", f"chunk={n}") for n in (16, 32, 64, 128, 256)}
    found: dict[str, dict[str, dict[str, float]]] = {
        "depth of the memory": {"yaad": depths},
        "chunk": {"yaad": chunks},
        "context": {},
    }
    for preset in ("yaad", "gated_deltanet", "transformer++"):
        lengths = (2**exponent for exponent in range(11, 21))
        found["context"][preset] = {str(n): _fastest(preset, n) for n in lengths}
    return found


def _speed(preset: str, *changes: str) -> float:
    from miras.analysis.plan.predict import predict

    plan = predict(job_of(Case(preset, "340M", "v5p-128"), *changes))
    return plan.tokens_per_second / plan.job.slice.chips


def _fastest(preset: str, length: int) -> float:
    """Of the meshes that split rows over `mesh.seq` and fit, with at least a row for each part."""
    from miras.analysis.plan.job import Job
    from miras.analysis.plan.predict import predict
    from miras.analysis.plan.slices import planned_slice
    from miras.config import override

    on = planned_slice("v5p-128")
    base = job_of(Case(preset, "340M", "v5p-128")).config
    best = 0.0
    for seq in (1, 2, 4, 8, 16):
        fsdp = on.chips // seq
        rows = fsdp * max(1, STEP // length // fsdp)
        mesh = (f"mesh.fsdp={fsdp}", "mesh.tensor=1", f"mesh.seq={seq}")
        config = override(base, *mesh, f"data.batch={rows}", f"data.sequence={length}")
        plan = predict(Job(config, on))
        if plan.fits:
            best = max(best, plan.tokens_per_second / on.chips)
    return best


def plot(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
    for axis, (name, lines) in zip(axes, found.items(), strict=True):
        for preset, values in lines.items():
            axis.plot([int(x) for x in values], list(values.values()), marker="o", label=preset)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3)
        if name != "depth of the memory":
            axis.set_xscale("log", base=2)
    most = max(x for lines in found.values() for values in lines.values() for x in values.values())
    axes[0].set_ylim(0, 1.05 * most)
    axes[0].set_ylabel("predicted tokens/s a chip")
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[2].legend()
    figure.suptitle("340M models on v5p-128 by miras plan, analytic")
    figure.savefig(RESULTS.with_suffix(".png"), dpi=120)


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Keep the rows in order."""
    rows = {name: rows[name] for name in map(key, CASES) if name in rows}
    lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    RESULTS.with_suffix(".md").write_text(TITLE + table(rows) + "\n![speeds](plans.png)\n")


def main() -> None:
    """Plan what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compile", action="store_true", help="one slice a size, minutes each")
    parser.add_argument("--only", default="", help="part of the names of rows to plan again")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in CASES:
        again = args.only and args.only in key(case)
        if again or key(case) not in rows:
            kept = rows.get(key(case), {}).get("compiled")
            rows[key(case)] = measure(case) | ({} if kept is None else {"compiled": kept})
            write(rows)
    if args.compile:
        for case in CASES:
            row = rows[key(case)]
            wanted = COMPILED[case.size] == case.slice and args.only in key(case)
            if wanted and "kernels" not in (row.get("compiled") or {}):
                row["compiled"] = compile_row(case)
                write(rows)
    plot(speeds())


if __name__ == "__main__":
    main()
