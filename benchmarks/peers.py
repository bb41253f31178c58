"""Ours beside the peers: time and peak memory, forward and forward with backward, as T grows.

Command:   pip install -e ".[peers]", then python -m benchmarks.peers
           --lengths 1024 --repeats 25 for one length only, --only qwen3-next for one peer.
Cost:      about 30 minutes on 2 cores with 24 GB, most of it the longest sequences; 3 minutes at
           T = 1024. Linux only: peaks are read from /proc.
Shows:     ratios of medians, theirs over ours: above 1, ours is the faster or the smaller. Kept
           in results/peers.md.

B = 2, width 256, 4 heads of 64, float32. Each contender has a process of its own, on the same
cores with as many threads, and they take turns call by call.

titans-pytorch: `NeuralMemory` with a per-head MLP memory of depth 2, expansion 4, momentum and
forgetting, beside our memory layer with the preset titans_lmm and the same (erf) GELU. Both project
to q, k, v and gates, normalise, write, read and project out. What differs: ours gates each token
and reads the memory as it stands after each token; theirs takes momentum and decay once per chunk
and reads the memory as it stood after the last whole chunk. `batch_size` is the chunk, so that
gradients are taken at a snapshot renewed every chunk, as ours are and as Titans defines.

titans-pytorch-stale: the same without `batch_size`, as is its default: all gradients are taken at
the initial weights. That is another function, which never corrects what it has written, but one
that goes through all chunks at once; it shows what the snapshots cost.

qwen3-next: `torch_chunk_gated_delta_rule` of transformers, which Qwen3-Next runs where there are no
fused kernels, beside `miras.scan` of the preset gated_deltanet, exact, at the same [B, T, H, D].
The same function but for the queries' scale.

A length at which a peer would need more memory than the machine has, or more than --patience
seconds a call, as its growth so far foretells, is left out and says so. Other work on the same
cores slows torch more than XLA, as its threads spin while they wait: run it on an idle machine.
Where there is none, --threads 1 and the ratio of CPU time, which leaves out waiting for a core,
come nearest. The load is kept with the results.
"""

import argparse
import importlib.metadata
import importlib.util
import math
import os
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import NEEDS, Shape
from benchmarks.turns import Cost, alternate, hold_to

RESULTS = Path(__file__).parent / "results" / "peers.md"
BATCH = 2
# peer: (ours, chunks)
MATCHES = {
    "titans-pytorch": ("miras layer", (16, 64)),
    "titans-pytorch-stale": ("miras layer", (16, 64)),
    "qwen3-next": ("miras scan", (64,)),
}
PASSES = {False: "forward", True: "forward + backward"}
COLUMNS = (
    "peer", "chunk", "pass", "T", "ours, ms", "theirs, ms", "time", "CPU", "ours, MB", "theirs, MB",
    "memory",
)  # fmt: skip


def main() -> None:
    """Measure, print and keep."""
    args = _arguments()
    missing = [NEEDS[p][1] for p in args.only if importlib.util.find_spec(NEEDS[p][0]) is None]
    if missing:
        raise SystemExit(
            f"{missing[0]} is not installed: pip install 'miras-jax[peers]', or name others with "
            f"--only ({', '.join(map(repr, MATCHES))})."
        )
    hold_to(args.threads)
    args.load = os.getloadavg()[0]
    RESULTS.parent.mkdir(exist_ok=True)
    rows = []
    for peer in args.only:
        ours, chunks = MATCHES[peer]
        for chunk in chunks:
            for backward in PASSES:
                rows += growth(peer, ours, chunk, backward, args)
                args.out.write_text(page(rows, args))  # what is done is kept
    table = Table(*COLUMNS, title="medians; ratios of time and memory: theirs / ours")
    for cells in rows:
        table.add_row(*cells)
    Console(width=140).print(table)


def growth(peer: str, ours: str, chunk: int, backward: bool, args) -> list[tuple[str, ...]]:
    """A row for each length, the shorter first."""
    rows, theirs = [], []  # (length, cost) so far
    for length in args.lengths:
        refused = _foretold(theirs, length, args.patience)
        shape = Shape(BATCH, length, chunk)
        repeats = max(3, args.repeats * args.lengths[0] // length)
        costs = alternate((ours,) if refused else (ours, peer), shape, backward, repeats)
        if not refused:
            theirs.append((length, costs[1]))
        rows.append(row(peer, shape, backward, costs, refused))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _foretold(theirs: list[tuple[int, Cost]], length: int, patience: float) -> str:
    """Why a peer is not asked for a length, from what its last lengths took; "" where it is."""
    if not theirs:
        return ""
    before, cost = theirs[-1]
    growth = length / before
    if cost.memory * growth > 0.8 * _available():
        return "would not fit"
    power = 1.0
    if len(theirs) > 1:
        first, earlier = theirs[-2]
        power = math.log(cost.time / earlier.time) / math.log(before / first)
    seconds = cost.time * growth**power
    return f"about {seconds:.0f} s" if seconds > patience else ""


def row(
    peer: str, shape: Shape, backward: bool, costs: list[Cost], refused: str
) -> tuple[str, ...]:
    """One line of the table; `costs` of ours and, where it was run, theirs."""
    ours, theirs = costs[0], costs[1] if len(costs) > 1 else None
    point = peer, str(shape.chunk), PASSES[backward], str(shape.length), f"{1e3 * ours.time:.0f}"
    memory = f"{ours.memory / 1e6:.0f}"
    if theirs is None:
        return *point, f"({refused})", "-", "-", memory, "-", "-"
    return (
        *point,
        f"{1e3 * theirs.time:.0f}",
        f"{theirs.time / ours.time:.2f}",
        f"{theirs.cpu / ours.cpu:.2f}",
        memory,
        f"{theirs.memory / 1e6:.0f}",
        f"{theirs.memory / ours.memory:.2f}",
    )


def page(rows: list[tuple[str, ...]], args) -> str:
    """The table as Markdown, with what it was made by."""
    names = ("jax", "flax", "torch", "titans-pytorch", "transformers")
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names if _installed(n))
    lengths = " ".join(map(str, args.lengths))
    command = f"python -m benchmarks.peers --only {' '.join(args.only)} --lengths {lengths}"
    lines = [
        "# Ours beside the peers",
        "",
        f"`{command} --repeats {args.repeats} --threads {args.threads}`;",
        f"Python {platform.python_version()}, {versions};",
        f"{_processor()}, {args.threads} cores, load {args.load:.1f} before. Medians; ratios are",
        "theirs over ours. What is compared, and what differs: the script's docstring.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Ours beside the peers.")
    parser.add_argument("--only", nargs="+", choices=MATCHES, default=list(MATCHES))
    lengths = [1024, 2048, 4096, 8192, 16384, 32768]
    parser.add_argument("--lengths", nargs="+", type=int, default=lengths)
    parser.add_argument("--repeats", type=int, default=15, help="at the first length")
    parser.add_argument("--patience", type=float, default=30, help="seconds a call, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    line = next(x for x in lines if x.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def _installed(name: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=name))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), "unknown CPU")


if __name__ == "__main__":
    main()
