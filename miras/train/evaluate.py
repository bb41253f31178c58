"""Evaluation on held-out data, of a model in training or of a saved run.

Text is measured in bits per byte; a task by the share of correct answers (`accuracy`).
"""

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from flax import nnx
from jax.sharding import Mesh

from miras.config import override, require
from miras.data import DataConfig, check_text, make_loader, vocabulary
from miras.parallel.batches import to_devices
from miras.runtime import signals
from miras.train.accuracy import Answers, evaluate_answers, make_answers_step
from miras.train.load import Run
from miras.train.state import Params
from miras.train.step import Batch, Totals, make_eval_step


class HeldOut(NamedTuple):
    """How well a model predicts text.

    Attributes:
        loss: nats per token.
        bits_per_byte: sum(nats) / ln 2 / sum(bytes), which is comparable across tokenizers.
        perplexity: exp(loss), per token.
        tokens: number of predicted tokens.
    """

    loss: float
    bits_per_byte: float
    perplexity: float
    tokens: int

    @property
    def summary(self) -> str:
        """One line for the log."""
        return f"{self.bits_per_byte:.3f} bits per byte on held-out text"


Evaluator = Callable[[Params, Iterable[Batch]], HeldOut | Answers]


def make_evaluator(graphdef: nnx.GraphDef, data: DataConfig, mesh: Mesh | None = None) -> Evaluator:
    """A function that evaluates parameters on batches of a config's data; it compiles once.

    It raises `miras.runtime.signals.Interrupted` between two batches after a signal.

    Args:
        graphdef: the model's structure.
        data: what the batches are of.
        mesh: of the parameters; the batches then have the rows of `batches.local_rows`.
    """
    place = functools.partial(to_devices, mesh, batch=data.batch) if mesh else lambda batch: batch
    if data.task is None:
        evaluator = functools.partial(evaluate, make_eval_step(graphdef))
    else:
        step = make_answers_step(graphdef, vocabulary(data))
        evaluator = functools.partial(evaluate_answers, step)
    return lambda params, batches: evaluator(params, map(place, _interruptible(batches)))


def _interruptible(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        signals.poll()
        signals.check()
        yield batch


def evaluate(
    step: Callable[[Params, Batch], Totals], params: Params, batches: Iterable[Batch]
) -> HeldOut:
    """Evaluate a model on batches; each target counts once."""
    nats = targets = size = 0.0
    for batch in batches:
        totals = step(params, batch)
        nats += float(totals.nats)
        targets += float(totals.targets)
        size += float(totals.bytes)
    loss = nats / max(targets, 1)
    bits = nats / math.log(2) / max(size, 1)
    perplexity = math.exp(loss) if loss < 700 else math.inf  # exp(710) overflows
    return HeldOut(loss, bits, perplexity, int(targets))


def sample(
    data: DataConfig, chunk: int, batches: int | None, rows: Sequence[int] | None = None
) -> Iterable[Batch]:
    """Held-out batches: all in order, or the same few, drawn from all documents, every time.

    Of each batch only `rows`, or all if None.
    """
    few = batches is not None
    require(batches is None or batches >= 1, f"batches={batches} must be at least 1.")
    loader = make_loader(data, "validation", align=chunk, epochs=1, shuffle=few, rows=rows)
    return itertools.islice(loader, None if batches is None else min(batches, sys.maxsize))


def evaluate_run(
    run: Run, source: str | None = None, batches: int | None = None
) -> HeldOut | Answers:
    """Evaluate a run on its held-out data, or on the held-out text of another source.

    Args:
        run: as returned by `load_run`.
        source: as `data.source`; the text or task of the run by default.
        batches: number of batches; all held-out data by default.

    Raises:
        ConfigError: the source cannot be used.
    """
    data = run.config.data
    if source is not None:
        check_text(data, "--data")
        data = override(data, f"source={source}", "task=none", "mix={}")
    loader = sample(data, run.config.model.align, batches)
    graphdef, params = nnx.split(run.model, nnx.Param)
    return make_evaluator(graphdef, data)(nnx.to_pure_dict(params), loader)
