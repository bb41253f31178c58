"""What models recall at the length they were trained at, and at 4 and 16 times as much.

Command:   python -m experiments.recall             (goes on where it was stopped)
           --tasks mqar --models yaad --seeds 1 for less; several at once may write to one folder,
           each with models of its own.
Cost:      2 to 10 minutes a model, task and seed on one core, 4 hours for all.
Expected:  see experiments/README.md, which tells what was found. Kept in results/recall.jsonl,
           recall_mqar.png and recall_niah.png.

Every model has the parameters of `yaad` to within 1 %, the same recipe, rows and seeds. MQAR asks
for 2, 4 or 8 pairs, the queries anywhere behind them (`power=1`) and nothing between, as random
tokens of so small a vocabulary would often be the keys themselves. S-NIAH hides a passkey of 2
digits in RULER's noise, in tokens of a BPE trained on such rows, of which the question alone takes
95. MQAR is scored by token, as Zoology does, and S-NIAH by exact match, as RULER does.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import pathlib
import statistics
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.trainers
from tokenizers import pre_tokenizers

import miras
from miras.analysis.costs import costs
from miras.analysis.eval.evaluate import evaluate_task
from miras.analysis.match import match
from miras.data import vocabulary
from miras.data.task import with_examples
from miras.runtime.figures import png, write_figure
from miras.runtime.terminal import tolerant_output
from miras.tasks.niah import NIAH, NOISE
from miras.train import RunConfig, load_run, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parent / "results"
SIZE = ("layers=2", "width=64", "heads=2")  # and the chunk of 16 that presets have
MODELS = {  # a preset, and what is changed of it
    "transformer++": ("transformer++",),
    "transformer++ conv": ("transformer++", "layer.conv=4"),
    "linear_attention": ("linear_attention",),
    "gated_deltanet": ("gated_deltanet",),
    "gated_deltanet2": ("gated_deltanet2",),
    "momentum_deltanet": ("momentum_deltanet",),
    "titans_lmm": ("titans_lmm", "rule.algorithm.lr=0.03"),
    "moneta": ("moneta", "rule.algorithm.lr=1e-3"),
    "yaad": ("yaad", "rule.algorithm.lr=0.1"),
    "memora": ("memora", "rule.algorithm.lr=0.1"),
    "titans_mac": (
        "titans_mac",
        "attention.segment=32",
        "attention.window=32",
        "rule.algorithm.lr=0.1",
    ),
    "titans_caching": ("titans_caching", "architecture.segment=32", "rule.algorithm.lr=0.03"),
    "moneta_caching": ("moneta_caching", "architecture.segment=32", "rule.algorithm.lr=1e-3"),
    "tnt_titans": (
        "tnt_titans",
        "architecture.global_chunk=32",
        "architecture.shard=32",
        "rule.algorithm.lr=0.03",
    ),
}
TASKS = {
    "mqar": (
        "task=mqar",
        "task.vocab=64",
        "task.pairs=[2,4,8]",
        "task.power=1",
        "task.noise=false",
        "task.examples=32000",
        "data.sequence=64",
        "data.batch=32",
        "train.steps=1000",
    ),
    "niah": (
        "task=niah",
        "task.form=passkey",
        "task.digits=2",
        "task.examples=10000",
        "data.sequence=128",
        "data.batch=16",
        "train.steps=600",
    ),
}
METRIC = {"mqar": "accuracy", "niah": "exact_match"}
RECIPE = ("train.learning_rate=4e-3", "train.eval_every=200", "train.checkpoint_every=10000")
FARTHER = (1, 4, 16)  # times the trained length
EXAMPLES = 90
TOKENS = 512  # of the BPE for S-NIAH


def tokenizer(folder: pathlib.Path) -> pathlib.Path:
    """A folder's byte-level BPE of S-NIAH's own wording, each digit a token, trained if missing."""
    path = folder / "tokenizer.json"
    if path.exists():
        return path
    random = np.random.default_rng(0)
    asked = [NIAH(digits=2).question(random) for _ in range(2000)]
    texts = [f"{a.opening}{''.join(NOISE)}{''.join(a.facts)}{a.text}{a.answer}" for a in asked]
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=TOKENS,
            special_tokens=["<s>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    made.save(str(path))
    return path


def configured(name: str, task: str, seed: int, folder: pathlib.Path) -> RunConfig:
    """The run of one model on one task, with the parameters of `yaad`."""

    def config_of(preset: str, *words: str) -> RunConfig:
        config = RunConfig(model=miras.override(miras.preset(preset), *SIZE, *words))
        config = miras.override(config, *TASKS[task], *RECIPE, f"train.seed={seed}")
        if task == "niah":
            config = miras.override(config, f"data.tokenizer={tokenizer(folder)}")
        return miras.override(config, f"model.vocab={vocabulary(config.data)}")

    config = config_of(*MODELS[name])
    parameters = costs(config_of("yaad").model).parameters
    return dataclasses.replace(config, model=match(config.model, parameters, fixed_width=True))


def run(name: str, task: str, seed: int, *words: str) -> dict:
    """Train one model, its config changed by `words`, and ask it at every length."""
    with tempfile.TemporaryDirectory() as folder:
        config = miras.override(configured(name, task, seed, pathlib.Path(folder)), *words)
        own = with_examples(config.data.task)
        out = pathlib.Path(folder) / "run"
        start = time.monotonic()
        train(config, out)
        seconds = time.monotonic() - start
        lengths = [config.data.sequence * times for times in FARTHER]
        depths = (0.0,) if task == "mqar" else (0.0, 0.5, 1.0)
        each = EXAMPLES // len(depths)
        results = evaluate_task(load_run(out), own, lengths, depths, each)
    cells = {length: results.of_length(length) for length in lengths}
    return {
        "model": name,
        "task": task,
        "seed": seed,
        "parameters": costs(config.model).parameters,
        "seconds": round(seconds),
        "accuracy": {str(length): cell.accuracy for length, cell in cells.items()},
        "exact_match": {str(length): cell.exact_match for length, cell in cells.items()},
    }


def table(rows: list[dict], task: str) -> str:
    """The score by model and length: the mean over seeds, the least and the most."""
    mine = [row for row in rows if row["task"] == task]
    if not mine:
        return ""
    lengths = list(mine[0][METRIC[task]])
    lines = [
        f"| {task} | seeds | " + " | ".join(f"{length} tokens" for length in lengths) + " |",
        "|---" * (2 + len(lengths)) + "|",
    ]
    for name in MODELS:
        own = [row[METRIC[task]] for row in mine if row["model"] == name]
        if not own:
            continue
        cells = []
        for length in lengths:
            found = [scores[length] for scores in own]
            cells.append(f"{statistics.fmean(found):.2f} ({min(found):.2f}-{max(found):.2f})")
        lines.append(f"| `{name}` | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(rows: list[dict], task: str, path: pathlib.Path) -> None:
    """The score over length, a panel a model: the mean over seeds, and each seed."""
    names = [n for n in MODELS if any((r["model"], r["task"]) == (n, task) for r in rows)]
    columns = math.ceil(len(names) / 2)
    draw = functools.partial(_draw, rows, task, names, columns)
    write_figure(path, lambda: png(draw, (2.1 * columns, 4.2)), print)


def _draw(rows: list[dict], task: str, names: list[str], columns: int, figure: "Figure") -> None:
    panels = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for name, axes in itertools.zip_longest(names, panels):
        if name is None:
            axes.set_axis_off()
            continue
        own = [row[METRIC[task]] for row in rows if (row["model"], row["task"]) == (name, task)]
        lengths = [int(length) for length in own[0]]
        for scores in own:
            axes.plot(lengths, list(scores.values()), color="#5b86b4", alpha=0.4, linewidth=1)
        means = [statistics.fmean(scores[str(length)] for scores in own) for length in lengths]
        axes.plot(lengths, means, color="#23527c", marker="o", markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set_ylim(-0.02, 1.04)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    figure.supxlabel("tokens of a row; trained at the shortest", fontsize=9)
    figure.supylabel(METRIC[task].replace("_", " "), fontsize=9)


def read(path: pathlib.Path) -> list[dict]:
    """The rows that are kept, in the order of models and seeds."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return sorted(rows, key=lambda r: (r["task"], list(MODELS).index(r["model"]), r["seed"]))


def main(argv: list[str] | None = None) -> None:
    """Run what is not kept yet, and write the results behind each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="changes every run's config")
    args = parser.parse_args(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "recall.jsonl"
    wanted = [
        (name, task, n) for n in range(args.seeds) for task in args.tasks for name in args.models
    ]
    for name, task, seed in wanted:
        if any((r["model"], r["task"], r["seed"]) == (name, task, seed) for r in read(path)):
            continue
        line = json.dumps(run(name, task, seed, *args.words))
        with path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
    for task in args.tasks:
        plot(read(path), task, args.results / f"recall_{task}.png")
        print(table(read(path), task))


if __name__ == "__main__":
    with tolerant_output():
        main()
