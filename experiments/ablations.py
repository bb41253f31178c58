"""The ablations of MIRAS at small scale on text, each beside the direction that the papers report.

Command:   python -m experiments.ablations --data FILE      (goes on where it was stopped)
           FILE is a text, such as the validation part of WikiText-2; --only for some of the grids;
           --change steps=2000 for another size, then with folders of its own for --out and
           --results.
Cost:      20 to 40 seconds a run on one idle core; 57 runs.
Expected:  see experiments/README.md. Kept in results/ablations.jsonl and ablations.png.

Three grids of `miras.analysis.ablate`, one around each of `yaad`, `moneta` and `memora`; the cells
are in `ablation_cells`. All have the parameters of their preset to within 2 %, the same seeds and
the same held-out text. Where a cell changes the rule, its inner rate is matched by write strength;
no rate is swept.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from flax import nnx

import miras
from experiments.ablation_cells import OWN, PRESETS, READ, READINGS, Cell, cells_of
from experiments.ablation_tables import markdown, plot
from miras.analysis.ablate import AblationGrid, GridResults, ablate, make_grid
from miras.cli.runs import run_config
from miras.config import sweep
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant_output
from miras.train import RunConfig, load_run
from miras.train.evaluate import evaluate_run
from miras.train.load import Run
from miras.train.state import structure

RESULTS = pathlib.Path(__file__).parent / "results"
SIZE = (
    *("width=48", "heads=2", "layers=2", "sequence=256", "batch=4", "steps=150", "remat=none"),
    *("learning_rate=6e-3", "eval_every=150", "eval_batches=64", "log_every=50"),
    *("health_every=100000", "checkpoint_every=100000"),
)
KEYS = ("preset", "cell", "seed", "read")  # of a line


def main() -> None:
    """Train what is missing, and write the tables and the figure."""
    args = _parser().parse_args()
    path = args.results / "ablations.jsonl"
    for preset in args.only:
        size = (*SIZE, *args.change)
        measure(preset, args.data, args.out / preset, path, seeds=args.seeds, size=size)
    plot(read(path), args.results / "ablations.png")
    print(markdown(read(path)))


def measure(
    preset: str,
    data: str,
    out: pathlib.Path,
    path: pathlib.Path,
    *,
    seeds: int,
    cells: tuple[Cell, ...] = (),
    size: tuple[str, ...] = SIZE,
) -> GridResults:
    """Train the grid around a preset, all of its cells if none are given, and keep its runs."""
    cells = cells or cells_of(preset)
    results = ablate(grid(preset, cells, data, seeds, size), out, jobs=1)
    lines = list(records(preset, cells, results))
    if preset == READ:
        known = {_key(line): line for line in read(path)}
        batches = results.base.config.train.eval_batches
        lines += [line for cell in lines for line in readings(cell, out, batches, known)]
    keep(lines, path)
    return results


def grid(
    preset: str, cells: tuple[Cell, ...], data: str, seeds: int, size: tuple[str, ...]
) -> AblationGrid:
    """The preset and its cells, at equal parameters and matched rates."""
    base = run_config(preset, list(size), data).model

    def build(*words: str) -> RunConfig:
        config = run_config(preset, [*size, *words], data, rates="raw")
        if any(word.startswith("algorithm.lr=") for word in words):
            return config
        model = miras.match_strength(config.model, base)
        return RunConfig(model=model, data=config.data, train=config.train)

    points: sweep.Sweep = ({}, *(cell.point for cell in cells))
    return make_grid(points, build, seeds=seeds, title=preset, budget="params")


def records(preset: str, cells: tuple[Cell, ...], results: GridResults) -> Iterator[dict[str, Any]]:
    """A line for each run that has ended."""
    names = [OWN, *(cell.name for cell in cells)]
    assert len(names) == len(results.grid.cells), results.grid.illegal
    for run, outcome in results.outcomes.items():
        yield {
            **{"preset": preset, "cell": names[run.cell], "seed": run.seed, "read": None},
            **{"status": outcome.status, "bits_per_byte": outcome.bits_per_byte},
            **{"lr": run.config.model.rule.algorithm.lr, "parameters": outcome.parameters},
            **{"steps": outcome.steps, "seconds": round(outcome.seconds), "run": run.slug},
        }


def readings(
    line: dict[str, Any], out: pathlib.Path, batches: int, known: dict[Any, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The model of a run read in other ways, on the held-out text of the grid."""
    run = None
    for reading in READINGS:
        made = {**line, "read": reading.name}
        kept = known.get(_key(made))
        if line["status"] != "done" or line["cell"] != reading.cell:
            continue
        if kept is None or kept["run"] != line["run"]:
            run = run or load_run(out / "runs" / line["run"])
            held_out = evaluate_run(changed(run, reading.point), batches=batches)._asdict()
            yield {**made, "bits_per_byte": held_out["bits_per_byte"]}


def changed(run: Run, point: dict[str, Any]) -> Run:
    """A run whose model has other fields and the same parameters, and its held-out rows."""
    config = run.config
    aligned = math.lcm(config.model.align, config.data.held_out_align)
    config = miras.override(config, *sweep.assignments(point), f"data.held_out_align={aligned}")
    params = nnx.split(run.model, nnx.Param)[1]
    model = nnx.merge(structure(config.model)[0], params)
    return run._replace(config=config, model=model)


def keep(lines: Iterable[dict[str, Any]], path: pathlib.Path) -> None:
    """Put lines into a file, in place of those of the same runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {_key(line): line for line in [*read(path), *lines]}
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept.values()))


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[key] for key in KEYS)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The runs so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", required=True, help="a text")
    parser.add_argument("--only", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument(
        "--change", nargs="*", default=[], metavar="KEY=VALUE", help="of the size, as steps=2000"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/ablations", help="folder of the training runs"
    )
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder to write to")
    return parser


if __name__ == "__main__":
    with tolerant_output():
        main()
