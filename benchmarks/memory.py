"""What a training step of `miras.scan` takes in memory, by the length of the sequence.

Command:   python -m benchmarks.memory
Cost:      about 15 minutes on 2 cores and 3 GB; --longest shortens it.
Shows:     that training memory grows by one state a chunk and no more, with save_every="sqrt" by
           the square root of the number of chunks; the tokens' own share grows with T either way.
           Kept in results/memory.md.

A step is the gradient of sum(sin(y)) by the initial memory, q, k, v and all gates, compiled for the
CPU. For each length there are two figures, both beside the step's arguments: what XLA's buffer
assignment holds besides the results (`temp_size_in_bytes`), and by how much the process's resident
memory rose at most when the step ran, results included, as Linux counts it (VmHWM).
"""

import argparse
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

import jax
import jax.numpy as jnp

import miras
from miras.backends.xla.loop import checkpoint_interval
from miras.engine.state import initial_state
from miras.testing import random_inputs

RESULTS = pathlib.Path(__file__).parent / "results" / "memory.md"
PRESETS = ("titans_lmm", "gated_deltanet")
SAVE_EVERY = (None, "sqrt")
HEADS, WIDTH, CHUNK = 2, 64, 64
SHORTEST, LONGEST = 1024, 131072


def measure(name: str, length: int, save_every: str | None) -> dict[str, float]:
    """One step's memory in MiB; in a process of its own, whose peak nothing else has raised."""
    config = miras.preset(name)
    inputs = random_inputs(config.rule, B=1, T=length, H=HEADS, dk=WIDTH, dtype="f4")

    def total(W0, *streams):
        options = dict(chunk=CHUNK, exact=config.exact, save_every=save_every, backend="xla")
        return jnp.sum(jnp.sin(miras.scan(config.rule, W0, *streams, **options)[0]))

    arguments = jax.block_until_ready(jax.tree.map(jnp.asarray, inputs))
    step = jax.jit(jax.grad(total, tuple(range(5)))).lower(*arguments).compile()
    sizes = step.memory_analysis()
    assert sizes is not None
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    before = _status("VmRSS")
    results = jax.block_until_ready(step(*arguments))
    peak = _status("VmHWM") - before
    del results
    W0 = arguments[0]
    state = jax.eval_shape(lambda: initial_state(config.rule, W0, 1, WIDTH, WIDTH))
    # R, the snapshot, is found anew at the start of each chunk and never kept.
    states = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.A, state.S)))
    return {
        "state": states / 2**20,
        "results": sizes.output_size_in_bytes / 2**20,
        "temp": sizes.temp_size_in_bytes / 2**20,
        "peak": peak / 2**10,
    }


def _status(field: str) -> int:
    """A field of this process's status, KiB."""
    found = re.search(rf"^{field}:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1])


def table(name: str, rows: list[tuple[int, dict, dict]]) -> str:
    """The rows of one preset as Markdown."""
    state = rows[0][1]["state"]
    lines = [
        f"## {name}",
        "",
        f"A state, A and with momentum S, takes {state:.3g} MiB; all figures are MiB.",
        "",
        "| T | T/C states | all | the rest | all, sqrt | states in it | results | peak "
        "| peak, sqrt |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for length, plain, root in rows:
        count = length // CHUNK
        states = count * state
        group = checkpoint_interval("sqrt", count, 1)
        cells = (
            states, plain["temp"], plain["temp"] - states,
            root["temp"], (group + count // group) * state,
            plain["results"], plain["peak"], root["peak"],
        )  # fmt: skip
        lines.append(f"| {length:,} | " + " | ".join(f"{cell:,.1f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure every length in a process of its own and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--longest", type=int, default=LONGEST, help="the last T")
    parser.add_argument("--one", nargs=3, metavar=("PRESET", "T", "SAVE_EVERY"))
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    if args.one:
        name, length, save_every = args.one
        print(json.dumps(measure(name, int(length), None if save_every == "none" else save_every)))
        return
    parts = [
        "# Training memory by length",
        "",
        f"`python -m benchmarks.memory`: {os.cpu_count()} cores ({platform.machine()}), "
        f"jax {jax.__version__}, B = 1, {HEADS} heads of width {WIDTH}, chunks of {CHUNK}.",
        "",
    ]
    for name in PRESETS:
        rows, length = [], SHORTEST
        while length <= args.longest:
            rows.append((length, *(_in_child(name, length, how) for how in SAVE_EVERY)))
            print(name, *rows[-1], flush=True)
            length *= 2
        parts += [table(name, rows), ""]
    args.results.write_text("\n".join(parts))


def _in_child(name: str, length: int, save_every: str | None) -> dict[str, float]:
    one = ("--one", name, str(length), save_every or "none")
    command = [sys.executable, "-m", "benchmarks.memory", *one]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
