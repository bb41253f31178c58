"""How long the train step of a model of 24 layers takes to compile.

Command:   python -m benchmarks.compile_time
Cost:      about 3 minutes on 2 cores; --only names other presets.
Shows:     that no preset's step takes 60 s of CPU time: blocks are one scan over layers, so that 24
           layers compile as one does. Kept in results/compile_time.md.

The step is the trainer's own (`miras.train.step`): forward, backward and AdamW, at width 256, 4
heads and 8 rows of 512 bytes. Each preset has a process of its own, and nothing is run. "CPU" is
the time of all threads, which does not depend on what else the machine does; the others do, so the
load when it began is kept with them.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

import miras
from miras.train import TrainConfig
from miras.train.optimizer import decay_mask, make_optimizer
from miras.train.state import create, structure
from miras.train.step import make_train_step

RESULTS = pathlib.Path(__file__).parent / "results" / "compile_time.md"
PRESETS = ("titans_lmm", "yaad", "moneta", "memora", "gated_deltanet")
LAYERS, WIDTH, HEADS, ROWS, LENGTH = 24, 256, 4, 8, 512


def measure(name: str, layers: int) -> dict[str, float]:
    """Seconds to trace, lower and compile a preset's train step."""
    model = dataclasses.replace(miras.preset(name), layers=layers, width=WIDTH, heads=HEADS)
    graphdef, params = structure(model)
    optimizer = make_optimizer(TrainConfig(), decay_mask(params))
    state = jax.eval_shape(lambda: create(model, optimizer, 0))
    dtypes = {
        "inputs": jnp.int32, "targets": jnp.int32, "segment_ids": jnp.int32, "mask": bool,
        "target_bytes": jnp.float32,
    }  # fmt: skip
    shape = (1, ROWS, LENGTH)
    batch = {field: jax.ShapeDtypeStruct(shape, dtype) for field, dtype in dtypes.items()}
    step = make_train_step(graphdef, optimizer)
    marks, cpu = [time.perf_counter()], time.process_time()
    traced = step.trace(state, batch, jax.ShapeDtypeStruct((), bool))
    marks.append(time.perf_counter())
    lowered = traced.lower()
    marks.append(time.perf_counter())
    lowered.compile()
    marks.append(time.perf_counter())
    cpu = time.process_time() - cpu
    seconds = {k: b - a for k, a, b in zip(("trace", "lower", "compile"), marks, marks[1:])}
    return seconds | {"total": marks[-1] - marks[0], "cpu": cpu}


def table(rows: dict[str, tuple[dict[str, float], dict[str, float]]]) -> str:
    """The rows as Markdown, seconds."""
    lines = [
        "| preset | trace | lower | compile | total | CPU | CPU of 1 layer |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (full, one) in rows.items():
        cells = [full[key] for key in ("trace", "lower", "compile", "total", "cpu")]
        cells.append(one["cpu"])
        lines.append(f"| `{name}` | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure each preset in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=PRESETS, metavar="PRESET")
    parser.add_argument("--one", nargs=2, metavar=("PRESET", "LAYERS"))
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]))))
        return
    rows, load = {}, os.getloadavg()[0]
    for name in args.only:
        rows[name] = tuple(_in_child(name, layers) for layers in (LAYERS, 1))
        print(name, *rows[name], flush=True)
    where = f"{os.cpu_count()} cores ({platform.machine()}), jax {jax.__version__}"
    text = (
        f"# Seconds to compile a train step of {LAYERS} layers\n\n"
        f"`python -m benchmarks.compile_time`: {where}, load at the start {load:.1f}; "
        f"width {WIDTH}, {HEADS} heads, [{ROWS}, {LENGTH}] tokens.\n\n"
    )
    args.results.write_text(text + table(rows) + "\n")


def _in_child(name: str, layers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.compile_time", "--one", name, str(layers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
