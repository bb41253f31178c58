"""Two million tokens in constant memory.

Command:   python -m experiments.long_context
Cost:      about 4 minutes on 2 cores; --tokens shortens it, --only names one model.
Expected:  the resident set at 100,000 tokens and behind the last whole piece within 5 % of one
           another, finite outputs, and the same logits at the end whichever way the text was cut
           into pieces. Kept in results/long_context.json and long_context.png.

Small models with random parameters (2 layers, width 32, 2 heads) read random bytes: what is shown
is the state and not what was learned. Each has a process of its own. The last, shorter piece is
compiled anew, which takes memory of its own, so the process is measured before it. A second reading
cuts the first 20,000 tokens into pieces of other sizes, which fall inside chunks and segments.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import miras
from miras.models import LanguageModel, prefill
from miras.stream import read
from miras.stream.read import PIECE

RESULTS = pathlib.Path(__file__).parent / "results"
TOKENS = 2_000_000
EARLY = 100_000  # where the resident set is compared with that at the end
SMALL = ("layers=2", "width=32", "heads=2")
MODELS = {
    "titans_mac": ("attention.segment=64", "attention.window=64"),
    "yaad": (),
}
BLOCK = 1 << 14


def text(tokens: int):
    """Random bytes behind a document start, the same every time."""
    rng = np.random.default_rng(0)
    yield np.asarray([256], np.int32)
    left = tokens - 1
    while left:
        block = rng.integers(0, 256, min(left, BLOCK), dtype=np.int32)
        left -= len(block)
        yield block


def resident() -> int:
    """Bytes of memory that this process holds."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def measure(name: str, tokens: int) -> dict:
    """Read the text; the resident set and the loss on the way."""
    config = miras.override(miras.preset(name), *SMALL, *MODELS[name])
    model = LanguageModel(config, nnx.Rngs(0))
    track, began, told = [], time.perf_counter(), 0

    def tell(count: int, bucket) -> None:
        nonlocal told
        if count - told >= tokens // 200 and count < tokens - PIECE:
            told = count
            track.append((count, resident(), bucket.loss))

    found = read(model, text(tokens), np.ones(257), tell=tell)
    seconds = time.perf_counter() - began
    early = next(size for count, size, _ in track if count >= min(EARLY, tokens // 20))
    return {
        "model": name,
        "tokens": found.session.tokens,
        "seconds": round(seconds, 1),
        "resident_early": early,
        "resident_end": track[-1][1],
        "losses": [(b.first, b.loss) for b in found.buckets],
        "finite": bool(jnp.isfinite(found.session.logits).all()),
        "memory_norm": found.buckets[-1].mean("memory_norm"),
        "cut": cut_difference(model, min(tokens, 20_000)),
        "track": track,
    }


def cut_difference(model: LanguageModel, tokens: int) -> float:
    """The largest difference of the last logits between one reading and another cut at random."""
    ids = np.concatenate(list(text(tokens)))[None]
    whole, _ = prefill(model, jnp.asarray(ids))
    rng, state, logits, at = np.random.default_rng(1), None, whole, 0
    sizes = rng.choice([1, 37, 64, 500, 1024, 4097], size=tokens)
    for size in sizes:
        logits, state = prefill(model, jnp.asarray(ids[:, at : at + size]), state)
        at += size
        if at >= tokens:
            break
    return float(jnp.abs(logits - whole).max())


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """The resident set over the tokens read."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row in rows:
        count, size, _ = zip(*row["track"])
        change = row["resident_end"] / row["resident_early"] - 1
        label = f"{row['model']} ({change:+.1%} from {EARLY:,} tokens on)"
        axes.plot(np.asarray(count) / 1e6, np.asarray(size) / 2**20, label=label)
    axes.set(xlabel="million tokens read", ylabel="resident set, MiB", ylim=(0, None))
    axes.set_title("Memory of the process, small models on a CPU")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the experiment and write its results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.only[0], args.tokens)))
        return
    rows = []
    for name in args.only:
        command = (sys.executable, "-m", "experiments.long_context", "--child")
        words = (*command, "--only", name, "--tokens", str(args.tokens))
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
        rows.append(json.loads(done.stdout))
        row = rows[-1]
        print(
            f"{name}: {row['tokens']:,} tokens in {row['seconds']:,.0f} s, resident "
            f"{row['resident_early'] / 2**20:.0f} MiB early, {row['resident_end'] / 2**20:.0f} MiB "
            f"at the end, finite {row['finite']}, cut otherwise {row['cut']:.1e}",
            flush=True,
        )
        args.results.mkdir(parents=True, exist_ok=True)
        command = f"python -m experiments.long_context --tokens {args.tokens}"
        kept = {"command": command, "rows": rows}
        (args.results / "long_context.json").write_text(json.dumps(kept) + "\n")
        plot(rows, args.results / "long_context.png")


if __name__ == "__main__":
    main()
