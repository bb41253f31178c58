"""Human promoters by cross-validation, and bits per base of the genome of a virus.

Command:   python -m experiments.genomics promoters --data-dir DIR    (goes on where it stopped)
           python -m experiments.genomics genome --data-dir DIR
           python -m experiments.genomics table
Data:      DIR has human_promoter_101bp.csv, the rows of DNABERT's example
           (github.com/jerryji1993/DNABERT, examples/sample_data) whose index is no multiple of 5,
           with a header sequence,label; and lambda_virus.fa (NC_001416.1, in the examples of
           github.com/BenLangmead/bowtie2).
Cost:      1 minute a fold and seed on one idle core, 1.5 hours for all promoters; 30 minutes for
           the genome.
Expected:  see experiments/README.md. Kept in results/promoters.jsonl and results/genome.jsonl.

Each of the 800 rows is held out once per split and seed. `random` folds are those of `task.folds`.
In `similar` folds, rows that share a word of 16 nucleotides, on either strand, are on one side:
some rows are copies of one repeat, which long words recognise.
"""

import argparse
import csv
import json
import math
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

import miras
from experiments.sequence_baselines import kmer_counts, logistic_regression, markov_bits
from miras.data import make_loader, make_tokenizer, vocabulary
from miras.data.labelled.example import Labelled
from miras.data.labelled.splits import choose
from miras.data.tokenizers.nucleotide import complement
from miras.models import score
from miras.train import RunConfig, load_run, train

RESULTS = pathlib.Path(__file__).parent / "results"
PROMOTERS, GENOME = "promoters.jsonl", "genome.jsonl"
FOLDS, SEEDS = 5, (0, 1, 2)
SPLITS = ("random", "similar")
SHARED = 16  # nucleotides that similar rows share
COST = 0.03  # of the logistic regression
ORDERS = range(13)
ALPHAS = (1, 4, 16, 64, 256, 1024, 4096)
TRAINED = 0.8  # share of the genome, from its start

COMMON = (
    "task=classify",
    'task.classes=["0","1"]',
    "data.tokenizer=nucleotide",
    "data.sequence=104",
    "data.batch=32",
    "chunk=8",
    "remat=none",
    "train.steps=200",
    "train.eval_every=1000",
    "train.health_every=1000",
    "train.checkpoint_every=1000",
    "train.log_every=50",
    "train.keep=1",
)
STRANDS = ("task.augment_strand=true", "task.pool_strands=true")
HIDE = ("task.hide=0.05", "train.weight_decay=1.0", *STRANDS)
WORDS = ("task.words=6", *HIDE)
SMALL = ("width=32", "layers=1", "heads=1")
MODELS = {  # a preset, and what is changed of it
    "gated_deltanet, words of 6": ("gated_deltanet", *SMALL, *WORDS),
    "yaad, words of 6": ("yaad", *SMALL, *WORDS),
    "gated_deltanet, words of 7, no channel mixer": (
        "gated_deltanet",
        "width=64",
        "layers=1",
        "heads=2",
        "channel=none",
        "task.words=7",
        *HIDE,
    ),
    "gated_deltanet, nucleotides": ("gated_deltanet", "width=48", "layers=2", "heads=2", *STRANDS),
}
KMERS = (3, 4, 5, 6, 7, 8)
GENOME_MODELS = ("gated_deltanet", "yaad")
GENOME_RECIPE = (
    "data.tokenizer=nucleotide",
    "model.vocab=6",
    "data.sequence=256",
    "data.batch=8",
    "width=64",
    "layers=2",
    "heads=2",
    "chunk=16",
    "remat=none",
    "train.steps=200",
    "train.weight_decay=1.0",
    "train.eval_every=50",
    "train.health_every=1000",
    "train.checkpoint_every=1000",
    "train.keep=1",
)
READ = 512  # tokens that are scored at once


class Promoters:
    """The labelled sequences, and their folds.

    Args:
        path: of the CSV file.
    """

    def __init__(self, path: pathlib.Path):
        with path.open(newline="") as file:
            rows = [(row["sequence"], row["label"]) for row in csv.DictReader(file)]
        self.examples = [Labelled(text.encode(), label) for text, label in rows]
        self.labels = np.array([int(label) for _, label in rows])
        tokenizer = make_tokenizer("nucleotide")
        self.ids = np.stack([tokenizer.encode(text) for text, _ in rows])

    def folds(self, split: str) -> np.ndarray:
        """The fold of each row, [n]."""
        found = np.zeros(len(self.examples), int)
        if split == "random":
            for fold in range(FOLDS):
                options = {"validation": 0.1, "seed": 0, "folds": FOLDS, "fold": fold}
                held_out = {x.text for x in choose({"train": self.examples}, "test", **options)}
                found[[x.text in held_out for x in self.examples]] = fold
            return found
        sizes = np.zeros((FOLDS, 2), int)
        for group in sorted(self._groups(), key=len, reverse=True):
            of_class = np.bincount(self.labels[group], minlength=2)
            fold = int(np.argmin((sizes + of_class).max(axis=1) * 10_000 + sizes.sum(axis=1)))
            found[group], sizes[fold] = fold, sizes[fold] + of_class
        return found

    def _groups(self) -> list[list[int]]:
        """Rows that share a word, directly or through others."""
        root = list(range(len(self.ids)))

        def find(n: int) -> int:
            while root[n] != n:
                n = root[n]
            return n

        first: dict[bytes, int] = {}
        for n, ids in enumerate(self.ids):
            for strand in (ids, complement(ids[::-1])):
                letters = strand.astype(np.uint8).tobytes()
                for start in range(len(letters) - SHARED + 1):
                    other = first.setdefault(letters[start : start + SHARED], n)
                    root[find(n)] = find(other)
        groups: dict[int, list[int]] = {}
        for n in range(len(root)):
            groups.setdefault(find(n), []).append(n)
        return list(groups.values())


def regression(rows: Promoters, train_on: np.ndarray, k: int) -> np.ndarray:
    """The log odds that a logistic regression on k-mer counts gives all other rows."""
    features = kmer_counts(rows.ids, k)
    weights = logistic_regression(features[train_on], rows.labels[train_on], COST)
    return features[~train_on] @ weights[:-1] + weights[-1]


def memory(name: str, rows: Promoters, train_on: np.ndarray, seed: int) -> np.ndarray:
    """As `regression`, of a model that is trained by `miras.train`."""
    with tempfile.TemporaryDirectory() as folder:
        for part, chosen in (("train", train_on), ("test", ~train_on)):
            with (pathlib.Path(folder) / f"{part}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("sequence", "label"))
                some = [rows.examples[n] for n in np.flatnonzero(chosen)]
                writer.writerows((text.decode(), label) for text, label in some)
        run = str(pathlib.Path(folder) / "run")
        train(promoter_config(name, folder, seed), run, console=Console(quiet=True))
        return log_odds(run)


def promoter_config(name: str, source: str, seed: int) -> RunConfig:
    """The run of a model on a folder of train.csv and test.csv."""
    preset, *changed = MODELS[name]
    config = RunConfig(model=miras.preset(preset))
    config = miras.override(config, *COMMON, *changed, f"data.source={source}")
    config = miras.override(config, f"train.seed={seed}", f"data.seed={seed}")
    return miras.override(config, f"model.vocab={vocabulary(config.data)}")


def log_odds(folder: str) -> np.ndarray:
    """The log odds of the second class of a run's test rows, the mean of both strands."""
    run = load_run(folder)
    config = run.config
    graphdef, params = nnx.split(run.model)
    forward = jax.jit(lambda params, *row: nnx.merge(graphdef, params)(row[0], mask=row[1]))
    found = []
    for batch in make_loader(config.data, "test", align=config.model.align):
        mask = batch["segment_ids"] > 0
        both = [forward(params, batch[strand], mask) for strand in ("inputs", "other_strand")]
        logits = np.asarray(sum(both) / 2)[batch["mask"]]
        found.append(logits[:, 1] - logits[:, 0])
    return np.concatenate(found)


def run_promoters(args: argparse.Namespace) -> None:
    """Train what is not kept yet, one fold at a time."""
    path, splits = args.results / PROMOTERS, args.splits
    rows = Promoters(args.data_dir / "human_promoter_101bp.csv")
    kept = {(r["model"], r["split"], r["seed"], r["fold"]) for r in read(path)}
    todo = [(f"{k}-mers", split, 0) for split in splits for k in KMERS]
    models, seeds = args.models or MODELS, SEEDS[: args.seeds]
    todo += [(name, split, seed) for seed in seeds for name in models for split in splits]
    for name, split, seed in todo:
        folds = rows.folds(split)
        for fold in range(FOLDS):
            if (name, split, seed, fold) in kept:
                continue
            train_on = folds != fold
            if name in MODELS:
                odds = memory(name, rows, train_on, seed)
            else:
                odds = regression(rows, train_on, int(name.partition("-")[0]))
            right = float(np.mean((odds > 0) == rows.labels[~train_on]))
            print(f"{name} {split} seed {seed} fold {fold}: {right:.3f}", flush=True)
            line = {"model": name, "split": split, "seed": seed, "fold": fold, "accuracy": right}
            line |= {"odds": [round(float(x), 3) for x in odds]}
            line |= {"labels": "".join(map(str, rows.labels[~train_on]))}
            keep(path, line)


def read(path: pathlib.Path) -> list[dict]:
    """The lines that are kept."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(path: pathlib.Path, line: dict) -> None:
    """Add a line."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def promoter_table(lines: list[dict]) -> str:
    """The accuracy of each model on each split, in Markdown."""
    table = [
        "| model | folds | accuracy | seeds (min to max) | 95 % over rows | mean of logits |",
        "|---|---|---|---|---|---|",
    ]
    for split in SPLITS:
        names = dict.fromkeys(line["model"] for line in lines if line["split"] == split)
        for name in names:
            own = [r for r in lines if (r["model"], r["split"]) == (name, split)]
            odds, labels = _whole(own)
            if not len(odds):
                continue
            right = (odds > 0) == labels
            low, high = _interval(right.mean(axis=0))
            seeds = right.mean(axis=1)
            each = (
                f"{len(seeds)} ({seeds.min():.3f} to {seeds.max():.3f})" if len(seeds) > 1 else "1"
            )
            pooled = f"{np.mean((odds.mean(axis=0) > 0) == labels):.3f}" if len(seeds) > 1 else ""
            table.append(
                f"| {name} | {split} | {seeds.mean():.3f} | {each} | {low:.3f} to {high:.3f} | "
                f"{pooled} |"
            )
    return "\n".join(table) + "\n"


def _whole(lines: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Log odds [seeds, rows] of the seeds whose folds are all there, and the labels [rows]."""
    odds, labels = [], np.zeros(0, bool)
    for seed in SEEDS:
        folds = sorted((r for r in lines if r["seed"] == seed), key=lambda r: r["fold"])
        if len(folds) == FOLDS:
            odds.append(np.concatenate([r["odds"] for r in folds]))
            labels = np.array([int(x) for r in folds for x in r["labels"]]) == 1
    return np.array(odds), labels


def _interval(right: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean over rows, by resampling them."""
    random = np.random.default_rng(0)
    means = right[random.integers(0, len(right), (4000, len(right)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def run_genome(args: argparse.Namespace) -> None:
    """Measure what is not kept yet, one model and seed at a time."""
    path = args.results / GENOME
    lines = (args.data_dir / "lambda_virus.fa").read_text().splitlines()
    ids = make_tokenizer("nucleotide").encode("".join(x for x in lines if not x.startswith(">")))
    start = int(TRAINED * len(ids))
    kept = {(r["model"], r["seed"]) for r in read(path)}
    for order in ORDERS:
        if (f"order {order}", 0) not in kept:
            keep(path, markov(ids, start, order))
    for name in args.models or GENOME_MODELS:
        for seed in SEEDS[: args.seeds]:
            if (name, seed) not in kept:
                bits = language_model_bits(name, ids, start, seed)
                print(f"{name} seed {seed}: {bits:.4f} bits per base", flush=True)
                keep(path, {"model": name, "seed": seed, "bits": bits})


def markov(ids: np.ndarray, start: int, order: int) -> dict:
    """The line of an order; alpha is the best one on the last eighth of what is trained on."""
    part = start * 7 // 8

    def tuned(alpha: float) -> float:
        return markov_bits(ids[:part], ids[part:start], order, alpha, adaptive=False)

    alpha = min(ALPHAS, key=tuned)
    found = {"model": f"order {order}", "seed": 0, "alpha": alpha}
    for name, adaptive in (("bits", False), ("adaptive_bits", True)):
        found[name] = markov_bits(ids[:start], ids[start:], order, alpha, adaptive=adaptive)
    print(found, flush=True)
    return found


def language_model_bits(name: str, ids: np.ndarray, start: int, seed: int) -> float:
    """Bits per base of the rest of the genome, which a model reads with its state carried."""
    tokenizer = make_tokenizer("nucleotide")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "train.fa"
        path.write_text(">train\n" + tokenizer.decode(ids[:start]) + "\n")
        config = RunConfig(model=miras.preset(name))
        config = miras.override(config, *GENOME_RECIPE, f"data.source={path}")
        config = miras.override(config, f"train.seed={seed}", f"data.cache={folder}")
        train(config, f"{folder}/run", console=Console(quiet=True))
        model = load_run(f"{folder}/run").model
    tokens = np.append(np.int32(tokenizer.bos_id), ids[start:])
    logits = state = None
    nats = 0.0
    for place in range(0, len(tokens), READ):
        piece = tokens[place : place + READ]
        row = np.zeros((1, READ), np.int32)
        row[0, : len(piece)] = piece
        found = score(model, jnp.asarray(row), jnp.array([len(piece)]), state, logits)
        logits, state = found.logits, found.state
        nats -= float(np.sum(np.asarray(found.logprobs, np.float64)))
    return nats / math.log(2) / (len(tokens) - 1)


def genome_table(lines: list[dict]) -> str:
    """Bits per base of each model, in Markdown."""
    table = ["| model | bits per base | counts go on in the test part |", "|---|---|---|"]
    for name in dict.fromkeys(line["model"] for line in lines):
        own = [line for line in lines if line["model"] == name]
        bits = [line["bits"] for line in own]
        shown = f"{np.mean(bits):.4f}"
        if len(bits) > 1:
            shown += f" ({min(bits):.4f} to {max(bits):.4f}, {len(bits)} seeds)"
        adaptive = own[0].get("adaptive_bits")
        alpha = f", alpha {own[0]['alpha']}" if adaptive else ""
        table.append(f"| {name}{alpha} | {shown} | {f'{adaptive:.4f}' if adaptive else ''} |")
    return "\n".join(table) + "\n"


def main() -> None:
    """Run a part of the experiment, or print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("promoters", "genome", "table"))
    parser.add_argument("--data-dir", type=pathlib.Path)
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    args = parser.parse_args()
    if args.part == "promoters":
        run_promoters(args)
    elif args.part == "genome":
        run_genome(args)
    print(promoter_table(read(args.results / PROMOTERS)))
    print(genome_table(read(args.results / GENOME)))


if __name__ == "__main__":
    main()
