"""What each setting of `miras.Precision` costs in accuracy, against float64.

Command:   python -m benchmarks.precision
Cost:      about 8 minutes on 2 cores; --only names others, such as "moneta chunk=64".
Shows:     relative errors over 4,096 tokens of the outputs, the last state and the gradients by
           q, k and v, as Frobenius norms over those of the same step in float64. Kept in
           results/precision.json; docs/precision.md has the table.

Chunks and gates are the preset's own, queries and keys normalised as the layers do it, values of
unit variance, and all are float32: their own rounding is no part of it. On a CPU the default is
full float32; on a TPU it is nearer to matmul=bfloat16.
"""

import argparse
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import miras
from miras import Precision

RESULTS = pathlib.Path(__file__).parent / "results" / "precision.json"
# A preset, and what is changed in it: with this threshold yaad's bias never leaves its l2 branch.
MODELS = ("titans_lmm", "yaad", "yaad bias.delta=100", "memora", "gated_deltanet")
SETTINGS = {
    "defaults": Precision(),
    "matmul=bfloat16": Precision(matmul="bfloat16"),
    "matmul, accumulation": Precision(matmul="bfloat16", accumulation="bfloat16"),
    "state=bfloat16": Precision(state="bfloat16"),
    "all three": Precision("bfloat16", "bfloat16", "bfloat16"),
}
LENGTH, HEADS, WIDTH = 4096, 2, 32


def measure(model: str) -> dict[str, dict[str, float | None]]:
    """Relative errors of y, state and gradient, by setting."""
    name, *changes = model.split()
    config = miras.override(miras.preset(name), *changes)
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, LENGTH, HEADS, WIDTH)).astype("f4")
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    inputs = config.rule.init(jax.random.key(0), WIDTH, heads=HEADS), q, k, v

    def results(inputs, precision: Precision) -> dict[str, list[np.ndarray]]:
        def objective(W0, q, k, v):
            y, state = miras.scan(
                config.rule, W0, q, k, v,
                chunk=config.chunk, exact=config.exact, precision=precision, backend="xla",
            )  # fmt: skip
            assert isinstance(state, miras.State)
            return jnp.sum(jnp.sin(y)), (y, state.A)

        step = jax.jit(jax.value_and_grad(objective, (1, 2, 3), has_aux=True))
        (_, (y, A)), gradient = step(*inputs)
        found = {"y": y, "state": A, "gradient": gradient}
        leaves = {key: jax.tree.leaves(tree) for key, tree in found.items()}
        return {key: [np.asarray(x, np.float64) for x in part] for key, part in leaves.items()}

    with jax.enable_x64(True):
        want = results(jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), inputs), Precision())
    rows = {}
    for setting, precision in SETTINGS.items():
        got = results(inputs, precision)
        rows[setting] = {key: _relative(got[key], want[key]) for key in want}
    return rows


def _relative(got: list[np.ndarray], want: list[np.ndarray]) -> float | None:
    """Frobenius norm of the difference over that of what is wanted, all leaves together.

    None where either is not finite.
    """
    norm = lambda leaves: float(np.sqrt(sum(np.sum(x**2) for x in leaves)))  # noqa: E731
    error = norm([a - b for a, b in zip(got, want)]) / norm(want)
    return error if math.isfinite(error) else None


def table(rows: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """The rows as Markdown: for each preset and setting the errors of y, state and gradient."""
    lines = ["| preset | setting | outputs | state | gradients |", "|---|---|---|---|---|"]
    for name, settings in rows.items():
        for setting, errors in settings.items():
            cells = [_cell(errors[key]) for key in ("y", "state", "gradient")]
            lines.append(f"| `{name}` | {setting} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(error: float | None) -> str:
    return "not finite" if error is None else f"{error:.1e}"


def main() -> None:
    """Measure each preset and keep its rows beside those of others."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=MODELS, metavar="MODEL")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    rows = json.loads(args.results.read_text())["rows"] if args.results.exists() else {}
    for name in args.only:
        rows[name] = measure(name)
        kept = {
            "command": "python -m benchmarks.precision",
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "rows": rows,
        }
        args.results.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
