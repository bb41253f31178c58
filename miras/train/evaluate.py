"""How well a model predicts what is held out: of a model in training or of a run read from disk.

Of text that is bits per byte; of a task, the answers that are right (`answers`).
"""

import functools
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from flax import nnx

from miras.config import override, require
from miras.data import DataConfig, check_text, make_loader, vocabulary
from miras.runtime import signals
from miras.train.accuracy import Answers, evaluate_answers, make_answers_step
from miras.train.load import Run
from miras.train.state import Params
from miras.train.step import Batch, Totals, make_eval_step


class HeldOut(NamedTuple):
    """How well a model predicts text.

    Attributes:
        loss: nats per token.
        bits_per_byte: sum(nats) / ln 2 / sum(bytes), which does not depend on the tokenizer.
        perplexity: exp(loss), per token.
        tokens: how many were predicted.
    """

    loss: float
    bits_per_byte: float
    perplexity: float
    tokens: int

    @property
    def summary(self) -> str:
        """In words."""
        return f"{self.bits_per_byte:.3f} bits per byte on held-out text"


Measure = Callable[[Params, Iterable[Batch]], HeldOut | Answers]


def make_measure(graphdef: nnx.GraphDef, data: DataConfig) -> Measure:
    """What measures parameters on batches of a config's data; compiles once.

    It raises `Interrupted` between two batches, see `miras.runtime.signals`.
    """
    if data.task is None:
        measure = functools.partial(evaluate, make_eval_step(graphdef))
    else:
        measure = functools.partial(evaluate_answers, make_answers_step(graphdef, vocabulary(data)))
    return lambda params, batches: measure(params, _interruptible(batches))


def _interruptible(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        signals.check()
        yield batch


def evaluate(
    step: Callable[[Params, Batch], Totals], params: Params, batches: Iterable[Batch]
) -> HeldOut:
    """Measure a model on batches, each target counted once."""
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


def sample(data: DataConfig, chunk: int, batches: int | None) -> Iterable[Batch]:
    """Held-out batches: all in order, or the same few, drawn from all documents, every time."""
    few = batches is not None
    require(batches is None or batches >= 1, f"batches={batches} must be at least 1.")
    loader = make_loader(data, "validation", align=chunk, epochs=1, shuffle=few)
    return itertools.islice(loader, None if batches is None else min(batches, sys.maxsize))


def evaluate_run(
    run: Run, source: str | None = None, batches: int | None = None
) -> HeldOut | Answers:
    """Measure a run on what it holds out, or on the held-out text of another source.

    Args:
        run: as `load_run` gives it.
        source: as `data.source`; the run's own text or task if not given.
        batches: how many to read; all that is held out if not given.

    Raises:
        ConfigError: for a source that cannot be used.
    """
    data = run.config.data
    if source is not None:
        check_text(data, "--data")
        data = override(data, f"source={source}", "task=none")
    loader = sample(data, run.config.model.align, batches)
    graphdef, params = nnx.split(run.model, nnx.Param)
    return make_measure(graphdef, data)(nnx.to_pure_dict(params), loader)
