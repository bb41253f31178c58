"""What models recall at the length they were trained at, and at 4 and 16 times as much.

Command:   python -m experiments.recall             (goes on where it was stopped)
           --tasks mqar --models yaad --seeds 1 for less.
Cost:      about 3 minutes a model, task and seed on 2 idle cores.
Expected:  see experiments/README.md, which tells what was found. Kept in results/recall.json,
           recall_mqar.png and recall_niah.png; with --data-dir, haystacks are its state_union.txt.

Every model has the parameters of `yaad` to within 1 %, the same recipe, rows and seeds. MQAR asks
for 2 or 4 pairs, the queries anywhere behind them (`power=1`) and nothing between, as random tokens
of so small a vocabulary would often be the keys themselves. S-NIAH hides a passkey of 2 digits in
RULER's noise. All rows are scored: token accuracy, which is Zoology's number, and exact match.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import tempfile

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import miras
from miras.costs import costs
from miras.data import vocabulary
from miras.eval.evaluate import evaluate_task
from miras.match import match
from miras.train import RunConfig, load_run, train

RESULTS = pathlib.Path(__file__).parent / "results"
SIZE = ("layers=2", "width=64", "heads=2", "chunk=16")
MODELS = {
    "transformer++": (),
    "linear_attention": (),
    "gated_deltanet": (),
    "titans_lmm": (),
    "moneta": (),
    "yaad": (),
    "memora": (),
    "titans_mac": ("attention.segment=32", "attention.window=32"),
}
TASKS = {
    "mqar": (
        (
            "task=mqar",
            "task.vocab=64",
            "task.pairs=[2,4]",
            "task.power=1",
            "task.noise=false",
            "task.examples=20000",
        ),
        ("data.sequence=128", "data.batch=32", "train.steps=800"),
    ),
    "niah": (
        ("task=niah", "task.form=passkey", "task.digits=2", "task.examples=8000"),
        ("data.sequence=256", "data.batch=16", "train.steps=1200"),
    ),
}
RECIPE = ("train.learning_rate=4e-3", "train.eval_every=200", "train.checkpoint_every=10000")
FARTHER = (1, 4, 16)  # times the trained length
EXAMPLES = 200


def configured(name: str, task: str, seed: int, parameters: int) -> RunConfig:
    """The run of one model on one task."""
    asked, shape = TASKS[task]
    config = RunConfig(model=miras.override(miras.preset(name), *SIZE, *MODELS[name]))
    config = miras.override(config, *asked, *shape, *RECIPE, f"train.seed={seed}")
    config = miras.override(config, f"model.vocab={vocabulary(config.data)}")
    model = match(config.model, parameters, fixed_width=True)
    return dataclasses.replace(config, model=model)


def run(name: str, task: str, seed: int, parameters: int) -> dict:
    """Train one model and ask it at every length."""
    config = configured(name, task, seed, parameters)
    with tempfile.TemporaryDirectory() as folder:
        train(config, pathlib.Path(folder) / "run")
        found = load_run(pathlib.Path(folder) / "run")
        lengths = [config.data.sequence * times for times in FARTHER]
        assert config.data.task is not None
        depths = (0.0,) if task == "mqar" else (0.0, 0.5, 1.0)
        each = EXAMPLES // len(depths)
        results = evaluate_task(found, config.data.task, lengths, depths, each)
    scores = {}
    for length in lengths:
        cells = [results.cells[length, depth] for depth in depths]
        scores[length] = {
            "accuracy": sum(c.hits for c in cells) / sum(c.targets for c in cells),
            "exact_match": sum(c.exact for c in cells) / sum(c.examples for c in cells),
        }
    return {
        "model": name,
        "task": task,
        "seed": seed,
        "parameters": costs(config.model).parameters,
        "scores": scores,
    }


def table(rows: list[dict], task: str) -> str:
    """Token accuracy by model and length: the mean over seeds, the least and the most."""
    mine = [row for row in rows if row["task"] == task]
    if not mine:
        return ""
    lengths = list(mine[0]["scores"])
    lines = [
        f"| {task} | seeds | " + " | ".join(f"{length} tokens" for length in lengths) + " |",
        "|---" * (2 + len(lengths)) + "|",
    ]
    for name in MODELS:
        own = [row for row in mine if row["model"] == name]
        if not own:
            continue
        cells = []
        for length in lengths:
            found = [row["scores"][length]["accuracy"] for row in own]
            cells.append(f"{statistics.fmean(found):.2f} ({min(found):.2f}-{max(found):.2f})")
        lines.append(f"| `{name}` | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: list[dict], task: str, path: pathlib.Path) -> None:
    """Accuracy over length, a line a model, its range over seeds shaded."""
    mine = [row for row in rows if row["task"] == task]
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in MODELS:
        own = [row["scores"] for row in mine if row["model"] == name]
        if not own:
            continue
        lengths = [int(length) for length in own[0]]
        found = [[scores[key]["accuracy"] for scores in own] for key in own[0]]
        axes.plot(lengths, [statistics.fmean(x) for x in found], marker="o", label=name)
        low, high = [min(x) for x in found], [max(x) for x in found]
        axes.fill_between(lengths, low, high, alpha=0.12)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="tokens of a row", ylabel="token accuracy", ylim=(0, 1.02))
    axes.set_title(f"{task}: trained at the shortest length")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run what is not kept yet, and write the results behind each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "recall.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    parameters = {}
    for task in args.tasks:
        for seed in range(args.seeds):
            for name in args.models:
                if any((r["model"], r["task"], r["seed"]) == (name, task, seed) for r in rows):
                    continue
                if task not in parameters:
                    parameters[task] = _parameters(task)
                row = run(name, task, seed, parameters[task])
                rows.append(json.loads(json.dumps(row)))
                path.write_text(json.dumps(rows, indent=1) + "\n")
                plot(rows, task, args.results / f"recall_{task}.png")
                print(json.dumps(row), flush=True)
        print(table(rows, task))


def _parameters(task: str) -> int:
    """Those of `yaad`, which all others are matched to."""
    asked, shape = TASKS[task]
    config = RunConfig(model=miras.override(miras.preset("yaad"), *SIZE))
    size = vocabulary(miras.override(config, *asked, *shape).data)
    return costs(dataclasses.replace(config.model, vocab=size)).parameters


if __name__ == "__main__":
    main()
