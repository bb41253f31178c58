"""Steps per second of TNT beside those of the memory that it holds, at equal width.

Command:   python -m benchmarks.tnt                     (results/tnt.md)
Cost:      some minutes of one core, most of them to compile.
Shows:     how much of the cost of small chunks TNT saves by computing shards side by side.

A step is the loss of a model of one block on one row of tokens, and its gradient. All models are
compiled first and then run in turn, round by round, on one core with one thread. A step's time is
the thread's CPU time, in which other programs of the machine have no share. The paper's figures are
hours of 8 TPU chips until a loss of 3.20, of models of 150M parameters.
"""

import argparse
import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.turns import hold_to

RESULTS = Path(__file__).parent / "results" / "tnt.md"
WIDTH, HEADS, LENGTH = 128, 2, 2048
SHARD = 256


@dataclasses.dataclass(frozen=True)
class Model:
    """Titans at a chunk, or TNT with chunks of its local memories; hours of the paper."""

    name: str
    words: tuple[str, ...]
    hours: float | None = None


def titans(chunk: int, hours: float | None = None) -> Model:
    """Titans' memory alone."""
    return Model(f"Titans, chunk {chunk}", ("titans_lmm", f"chunk={chunk}"), hours)


def tnt(*chunks: int, over: int, hours: float | None = None) -> Model:
    """A global memory with chunks of `over` tokens, and one local memory for each chunk."""
    own = f"global_chunk={over}", f"shard={SHARD}", f"local_chunks={list(chunks)}"
    words = "tnt_titans", *(f"architecture.{field}" for field in own)
    return Model(f"TNT, {{{', '.join(map(str, chunks))}}}, global chunk {over:,}", words, hours)


MODELS = (
    titans(8, hours=19.5),
    titans(16),
    titans(64, hours=4.2),
    tnt(8, over=64),
    tnt(16, over=64),
    tnt(8, 16, over=64),
    tnt(8, over=1024, hours=2.5),
    tnt(16, over=1024),
    tnt(8, 16, over=1024),
)


def step_of(model: Model, length: int) -> Callable[[], object]:
    """A compiled step."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    import miras
    from miras.models import LanguageModel

    sizes = f"width={WIDTH}", f"heads={HEADS}", "layers=1", "remat=false"
    config = miras.override(miras.preset(model.words[0]), *model.words[1:], *sizes)
    graph, params = nnx.split(LanguageModel(config, nnx.Rngs(0)), nnx.Param)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, config.vocab, (1, length)))

    def loss(params, tokens):
        logits, _ = nnx.merge(graph, params)(tokens)
        logs = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(logs, tokens[:, 1:, None], -1).mean()

    program = jax.jit(jax.value_and_grad(loss)).lower(params, tokens).compile()
    return lambda: jax.block_until_ready(program(params, tokens))


def rounds(steps: list[Callable[[], object]], repeats: int) -> list[float]:
    """The median CPU time of each step in seconds, run in turn after one call each."""
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, own in zip(steps, times):
            start = time.process_time()
            step()
            own.append(time.process_time() - start)
    return [statistics.median(own) for own in times]


def table(costs: list[float]) -> str:
    """Steps per second and the ratio to the first model, beside that of the paper's hours."""
    lines = [
        "| model | steps per second | times the first | paper: hours to loss 3.20 | ratio |",
        "|---|---|---|---|---|",
    ]
    for model, cost in zip(MODELS, costs):
        hours, most = model.hours, MODELS[0].hours
        paper = "| |" if hours is None or most is None else f"{hours} | {most / hours:.1f} |"
        lines.append(f"| {model.name} | {1 / cost:.3g} | {costs[0] / cost:.2f} | {paper}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and keep the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--length", type=int, default=LENGTH, help="tokens of the row")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    hold_to(threads=1)
    import jax

    costs = rounds([step_of(model, args.length) for model in MODELS], args.repeats)
    title = (
        "# Steps per second of TNT and of Titans\n\n"
        f"`python -m benchmarks.tnt`: one core ({platform.machine()}), jax "
        f"{jax.__version__}; one block of width {WIDTH} with {HEADS} heads, one row of "
        f"{args.length:,} tokens, shards of {SHARD}; medians of {args.repeats} rounds.\n\n"
    )
    print(table(costs))
    args.results.write_text(title + table(costs))


if __name__ == "__main__":
    main()
