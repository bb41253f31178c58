"""Two million tokens in constant memory.

Command:   python -m experiments.long_context
Cost:      about 10 minutes on 2 cores; --tokens shortens it, --only names one model.
Expected:  the resident set at 100,000 tokens and behind the last whole piece within 5 % of one
           another, finite outputs, and the same logits all the way, to rounding, however the text
           was cut. Kept in results/long_context.json and long_context.png.

Small models with random parameters (2 layers, width 32, 2 heads) read random bytes: what is shown
is the state and not what was learned. Each has a process of its own. The last, shorter piece is
compiled anew, which takes memory of its own, so the process is measured before it. Two more
readings of all tokens, behind that, cut the text in blocks of 16,384 and in pieces of 1 to 4,097,
inside chunks and segments; their logits are compared at the end of each block, since a memory
forgets, and those at the end with the first reading's too. A fourth, with noise of the size of
rounding in its state, shows what of that is the memory's own answer to rounding.
"""

import argparse
import functools
import json
import pathlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import miras
from miras.analysis.stream import read_stream
from miras.analysis.stream.read import PIECE
from miras.array_typing import Array
from miras.models import LanguageModel, prefill
from miras.runtime.figures import png, write_figure
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = pathlib.Path(__file__).parent / "results"
TOKENS = 2_000_000
EARLY = 100_000  # where the resident set is compared with that at the end
SMALL = ("layers=2", "width=32", "heads=2")
MODELS = {
    "titans_mac": ("attention.segment=64", "attention.window=64"),
    "yaad": (),
}
BLOCK = 1 << 14
NOISE = 1e-7  # relative, once a block
# A block's pieces, in an order of its own for each: runs of a few sizes, inside chunks and segments
# and across them, that each end at a segment's edge, so that few shapes are compiled.
CUTS = [(63, 4097)] * 2 + [(4097, 63)] + [(1000, 24)] * 3 + [(64,)] * 12 + [(1,) * 64]


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

    found = read_stream(model, text(tokens), np.ones(257), progress=tell)
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
        **differences(model, tokens, found.session.logits),
        "track": track,
    }


def differences(model: LanguageModel, tokens: int, last: Array) -> dict[str, list[float]]:
    """The largest difference of logits between several readings, at each block's end.

    Block by block, one reads the block at once, one in pieces ("cut"), and one at once with a state
    to which something of the size of its rounding was added ("noise"); each goes on from its own
    state all the way. `last` are the logits at the end of one more, in pieces of their own size,
    whose difference comes last.
    """
    ids, rng = np.concatenate(list(text(tokens))), np.random.default_rng(1)
    whole = cut = noisy = model.init_state(1)
    logits, found = last, {"cut": [], "noise": []}
    for block in np.split(ids, range(BLOCK, tokens, BLOCK)):
        logits, whole = prefill(model, jnp.asarray(block[None]), whole)
        edges = np.cumsum([size for n in rng.permutation(len(CUTS)) for size in CUTS[n]])
        other = logits
        for piece in np.split(block, edges[edges < len(block)]):
            other, cut = prefill(model, jnp.asarray(piece[None]), cut)
        found["cut"].append(float(jnp.abs(other - logits).max()))
        other, noisy = prefill(model, jnp.asarray(block[None]), noisy)
        found["noise"].append(float(jnp.abs(other - logits).max()))
        noisy = jax.tree.map(lambda x: with_noise(x, rng), noisy)
    found["cut"].append(float(jnp.abs(last - logits).max()))
    return found


def with_noise(x: Array, rng: np.random.Generator) -> Array:
    """A float32 array, each number moved by about its rounding."""
    if x.dtype != jnp.float32:
        return x
    return x * (1 + NOISE * rng.standard_normal(x.shape).astype(np.float32))


def plot(rows: list[dict], path: pathlib.Path) -> None:
    """The resident set over the tokens read."""
    write_figure(path, lambda: png(functools.partial(_draw, rows), (7, 3.8)), print)


def _draw(rows: list[dict], figure: "Figure") -> None:
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
            f"at the end, finite {row['finite']}; logits differ, cut otherwise, by "
            f"{np.median(row['cut']):.1e} and at most {np.max(row['cut']):.1e}, with noise by "
            f"{np.median(row['noise']):.1e} and at most {np.max(row['noise']):.1e}",
            flush=True,
        )
        args.results.mkdir(parents=True, exist_ok=True)
        command = f"python -m experiments.long_context --tokens {args.tokens}"
        kept = {"command": command, "rows": rows}
        write_atomically(args.results / "long_context.json", json.dumps(kept) + "\n")
        plot(rows, args.results / "long_context.png")


if __name__ == "__main__":
    with tolerant_output():
        main()
