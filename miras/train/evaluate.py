"""Evaluation on held-out data, of a model in training or of a saved run.

Text is measured in bits per byte; a task by the metrics of its objective.
"""

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from miras.config import override, require
from miras.data import DataConfig, check_text, make_loader
from miras.data.layout import row_layout
from miras.models.objective import Evaluation, Objective
from miras.parallel.batches import to_devices
from miras.runtime import signals
from miras.train.load import Run
from miras.train.objective_of import objective_of
from miras.train.state import Params
from miras.train.step import Batch

Evaluator = Callable[[Params, Iterable[Batch]], Evaluation]


def make_evaluator(graphdef: nnx.GraphDef, data: DataConfig, mesh: Mesh | None = None) -> Evaluator:
    """A function that evaluates parameters on batches of a config's data; it compiles once.

    It raises `miras.runtime.signals.Interrupted` between two batches after a signal.

    Args:
        graphdef: the model's structure.
        data: what the batches are of.
        mesh: of the parameters; the batches then have the rows of `batches.local_rows`.
    """
    layout = row_layout(data)
    place = lambda batch: batch  # noqa: E731
    if mesh is not None:
        place = functools.partial(to_devices, mesh, batch=data.batch, layout=layout)
    objective = objective_of(data)
    step = make_sums_step(graphdef, objective)
    return lambda params, batches: evaluate(
        objective, step, params, map(place, _interruptible(batches))
    )


def _interruptible(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        signals.poll()
        signals.check()
        yield batch


def make_sums_step(graphdef: nnx.GraphDef, objective: Objective) -> Callable[[Params, Batch], Any]:
    """A compiled `sums(params, batch)`, see `Objective.sums`."""
    return jax.jit(lambda params, batch: objective.sums(nnx.merge(graphdef, params), batch))


def evaluate(
    objective: Objective,
    step: Callable[[Params, Batch], Any],
    params: Params,
    batches: Iterable[Batch],
) -> Evaluation:
    """Evaluate a model on one or more batches; each target counts once.

    Args:
        objective: of the run.
        step: see `make_sums_step`.
        params: of the model.
        batches: of its data.
    """
    total: Any = None
    for batch in batches:
        sums = jax.tree.map(float, step(params, batch))
        total = sums if total is None else jax.tree.map(float.__add__, total, sums)
    return objective.result(total)


def sample(
    data: DataConfig,
    chunk: int,
    batches: int | None,
    rows: Sequence[int] | None = None,
    split: str = "validation",
) -> Iterable[Batch]:
    """Held-out batches: all in order, or the same few, drawn from all documents, every time.

    Of each batch only `rows`, or all if None.
    """
    few = batches is not None
    require(batches is None or batches >= 1, f"batches={batches} must be at least 1.")
    loader = make_loader(data, split, align=chunk, epochs=1, shuffle=few, rows=rows)
    return itertools.islice(loader, None if batches is None else min(batches, sys.maxsize))


def evaluate_run(run: Run, source: str | None = None, batches: int | None = None) -> Evaluation:
    """Evaluate a run on the split that its task reports, or on the held-out text of another source.

    Args:
        run: as returned by `load_run`.
        source: as `data.source`; the text or task of the run by default.
        batches: number of batches; all held-out data by default.

    Raises:
        ConfigError: the source cannot be used.
    """
    data = evaluated_data(run, source)
    split = "validation" if data.task is None else data.task.reports
    loader = sample(data, run.config.model.align, batches, split=split)
    graphdef, params = nnx.split(run.model, nnx.Param)
    return make_evaluator(graphdef, data)(nnx.to_pure_dict(params), loader)


def evaluated_data(run: Run, source: str | None = None) -> DataConfig:
    """The data on which `evaluate_run` evaluates.

    Another source is one of the run's task if that has a model of its own, and text otherwise.
    """
    data = run.config.data
    if source is None:
        return data
    if data.task is not None and data.task.objective(data) is not None:
        return override(data, f"source={source}")
    check_text(data, "--data")
    return override(data, f"source={source}", "task=none", "mix={}")
