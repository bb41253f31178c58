"""What the TPU's compiler makes of our kernels: bundles a token, without a chip.

Command:   python -m benchmarks.tpu_schedule            (all rows, into results/tpu_schedule.json
           and .md), or --only titans_lmm for one; `make tpu` installs the compiler.
Cost:      about 20 minutes on 2 cores. Linux on x86-64.
Shows:     for v5e, per rule, dtype, width and chunk, of a sequence in whole chunks and 4 heads:
           bundles that each token of a head takes (a bundle is a cycle of the core), forward as in
           inference, forward as in training, which saves memories, and backward; cycles in which
           the matrix units could do the same products at full rate, and the ratio to them; VMEM of
           the largest kernel; registers spilled a token.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from miras.analysis.plan import schedule

RESULTS = Path(__file__).parent / "results" / "tpu_schedule.json"
HEADS = 4
VMEM = 2**27  # bytes of a v5e
RAW = argparse.RawDescriptionHelpFormatter
TITLE = """# Bundles a token and head, by the TPU's compiler

`python -m benchmarks.tpu_schedule`; v5e, libtpu 0.0.42. What the columns say: the script's
docstring.

"""
# Rules: a preset and what differs from it.
MATRIX = "titans_lmm memory=matrix"  # the matrix memory with momentum and decay
RULES = ("titans_lmm", MATRIX, "gated_deltanet", "yaad", "moneta", "memora", "ttt_mlp", "mamba2")


class Case(NamedTuple):
    """One row: a rule, "float32" or "bfloat16" inputs, the width of a head, tokens of a chunk."""

    rule: str
    dtype: str
    width: int
    chunk: int


def key(case: Case) -> str:
    """A row's name in the results."""
    return ", ".join(map(str, case))


CASES = (
    *(Case(rule, "float32", 64, 64) for rule in RULES),
    *(Case(rule, "bfloat16", 64, 64) for rule in RULES[:3]),
    *(Case(rule, "float32", 128, 64) for rule in RULES[:3]),
    *(Case("titans_lmm", "float32", 64, chunk) for chunk in (8, 16, 32, 128)),
)


def case_of(
    case: Case, heads: int = HEADS, tokens: int | None = None
) -> tuple[Any, dict[str, Any], Any]:
    """(the rule, options of `scan`, its arrays in their shapes): of one row.

    Args:
        case: the rule and its sizes.
        heads: of the row.
        tokens: of the row; two chunks, 256 at least, if not given.
    """
    import jax

    import miras
    from miras.config import override
    from miras.testing import random_inputs

    preset, *changes = case.rule.split()
    config = override(miras.preset(preset), *changes)
    sizes: Any = {"T": tokens or max(2 * case.chunk, 256), "H": heads, "dk": case.width}
    terms = config.layer.terms(config.rule)
    inputs = random_inputs(config.rule, terms=terms, dtype="float32", **sizes)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    narrow = {n: jax.ShapeDtypeStruct(getattr(shapes, n).shape, case.dtype) for n in "qkv"}
    options = {"exact": config.exact, "chunk": case.chunk, "backend": "pallas"}
    return config.rule, options, shapes._replace(**narrow)


def compile_here(case: Case, passes: str) -> None:
    """Compile for v5e, with the compiler's dump where LIBTPU_INIT_ARGS says."""
    import jax
    import jax.numpy as jnp

    import miras
    from miras.backends.pallas.ahead_of_time import compile_ahead

    rule, options, shapes = case_of(case)

    def total(inputs):
        y, _ = miras.scan(rule, *inputs, **options)
        return jnp.sum(y.astype(jnp.float32))

    compile_ahead(total if passes == "forward" else jax.grad(total), shapes, chip="v5e")


def measure(case: Case) -> dict[str, float]:
    """One row of the table."""
    plan, products = _planned(case)
    again, paired = plan.layout.group - 1, plan.layout.paired
    row: dict[str, float] = {}
    for passes in ("forward", "training"):
        in_pairs = passes == "forward" and paired > 0
        at_once = 2 * paired if in_pairs else plan.layout.group * plan.layout.heads
        tokens = plan.tile * at_once
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "LIBTPU_INIT_ARGS": schedule.FLAGS.format(folder)}
            child = [
                sys.executable,
                "-m",
                "benchmarks.tpu_schedule",
                "--compile",
                passes,
                *case[:2],
            ]
            child += [str(case.width), str(case.chunk)]
            subprocess.run(child, env=environment, check=True)
            loops = [plan.layout.group] if again and not in_pairs else []
            forward = schedule.read(Path(folder), "miras_forward", loops)
            row[passes] = forward.bundles / tokens
            if passes == "forward":
                continue
            loops = [again, again + 1] if again else []
            backward = schedule.read(Path(folder), "miras_backward", loops)
            row["backward"] = backward.bundles / tokens
            row["spills"] = (forward.spills + backward.spills) / tokens
            row["vmem"] = max(forward.vmem, backward.vmem)
    row["products forward"], row["products backward"] = products
    return row


def _planned(case: Case) -> tuple[Any, tuple[float, float]]:
    """The plan, and the matrix units' cycles for a token's products, forward and backward."""
    import jax

    from miras.backends.base import Alignment, ScanInputs
    from miras.backends.pallas.tpu import block_program
    from miras.backends.pallas.tpu.plan import plan_tpu_kernel
    from miras.backends.pallas.trace.live_step import planned_live_step
    from miras.backends.xla.tiling import operand_shapes
    from miras.engine.averaging import by_position
    from miras.rule.options import ScanOptions

    rule, options, shapes = case_of(case)
    found: list[Any] = []
    average = by_position(case.chunk, "float32") if rule.algorithm.averaged else None

    def look(inputs):
        call = ScanInputs(*inputs, average=average)
        how = ScanOptions(chunk=case.chunk, exact=options["exact"])
        shapes = functools.partial(operand_shapes, rule, call, how, Alignment())
        found.append(plan_tpu_kernel(rule, how, shapes, VMEM))
        found.append(planned_live_step(rule, how, shapes(found[0].tile)))

    jax.eval_shape(look, shapes)
    layout, (step, operands) = found
    programs = (
        make(step, operands).program for make in (block_program.forward, block_program.backward)
    )
    forward, backward = (_cycles(program.jaxpr) / layout.tile for program in programs)
    return layout, (forward, backward + forward * (1 - 1 / layout.layout.group))


def _cycles(jaxpr: Any) -> float:
    """Cycles of a v5e's four matrix units, which take a row of 128 by 128 a cycle each."""
    from jax import lax

    from miras.backends.pallas.trace.jaxprs import equations, in_avals

    total = 0
    for eqn in equations(jaxpr):
        if eqn.primitive is lax.dot_general_p:
            (over, _), _ = eqn.params["dimension_numbers"]
            x, y = in_avals(eqn)
            rows, columns = x.size // x.shape[over[0]], y.size // x.shape[over[0]]
            passes = 1 if x.dtype == "bfloat16" else 6
            total += passes * rows * -(-x.shape[over[0]] // 128) * -(-columns // 128)
    return total / 4


def table(rows: dict[str, dict[str, float]]) -> str:
    """Rows as Markdown."""
    names = "rule", "inputs", "width", "chunk"
    heads = (*names, "forward", "in training", "products", "ratio", "backward", "products", "ratio")
    lines = ["| " + " | ".join((*heads, "VMEM, MiB", "spills")) + " |"]
    lines.append("|" + "---|" * (len(heads) + 2))
    for name, row in rows.items():
        cells = [*name.split(", ")]
        for bundles, products in (("training", "forward"), ("backward", "backward")):
            if bundles == "training":
                cells.append(f"{row['forward']:.1f}")
            most = row[f"products {products}"]
            cells += [f"{row[bundles]:.1f}", f"{most:.1f}", f"{row[bundles] / most:.1f}"]
        cells += [f"{row['vmem'] / 2**20:.1f}", f"{row['spills']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all rows, or those asked for, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--only", metavar="RULE", help="rows of this rule alone; the others stay")
    parser.add_argument("--compile", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile:
        passes, rule, dtype, width, chunk = args.compile
        compile_here(Case(rule, dtype, int(width), int(chunk)), passes)
        return
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for case in CASES:
        if args.only in (None, case.rule):
            rows[key(case)] = row = measure(case)
            print(case, {name: round(value, 2) for name, value in row.items()}, flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(TITLE + table(rows))


if __name__ == "__main__":
    main()
