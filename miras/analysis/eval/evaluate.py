"""A run's answers to a task at every length and depth."""

import dataclasses
from collections.abc import Callable, Sequence

from miras.analysis.eval.reading import Read, piece_of, reader, rows_of, score
from miras.analysis.eval.results import Cell, Results, cell_of
from miras.config import require, to_dict
from miras.data import vocabulary
from miras.data.config import DataConfig
from miras.data.task import check_depth
from miras.data.task_rows import open_task
from miras.runtime import signals
from miras.tasks import Example, Opened, Task, seeded
from miras.train import Run

_FINE = 10**6  # depths that differ by less share their rows' seeds


def evaluate_task(
    run: Run,
    task: Task,
    lengths: Sequence[int],
    depths: Sequence[float],
    examples: int,
    seed: int = 0,
    *,
    name: str = "",
    source: str | None = None,
    read: Read | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> Results:
    """Exact match of a run's greedy answers.

    Rows are drawn from seeds that no training or validation rows have, with held-out text as
    background, and those of each cell are others. A row is read in pieces of about a thousand
    tokens, so that memory does not grow with its length (but for attention's).

    Args:
        run: as `load_run` gives it.
        task: with its options; `task.depths` and `task.examples` do not matter here.
        lengths: tokens of a row.
        depths: where in the context that which is asked for stands, in [0, 1].
        examples: rows of each length and depth, >= 1.
        seed: another seed, other rows; in [0, 2**32).
        name: of the run, to be told in the results.
        source: background text as `data.source`; the run's own if not given.
        read: reads tokens instead of the run's model.
        progress: is told the tokens of each batch of rows that was read.

    Raises:
        ConfigError: for a value out of range, a task with another vocabulary than the run's, text
            or files that cannot be used, or a length that the task does not fit in.
        Interrupted: between two batches of rows, see `miras.runtime.signals`.
    """
    lengths, depths = tuple(sorted(set(lengths))), tuple(sorted(set(depths)))
    require(bool(lengths) and bool(depths), "give at least one length and one depth.")
    require(lengths[0] >= 1, f"length={lengths[0]} must be at least 1.")
    for depth in depths:
        check_depth(depth, "depth")
    require(examples >= 1, f"examples={examples} must be at least 1.")
    require(0 <= seed < 2**32, f"seed={seed} must lie in [0, 2**32).")
    data = _data(run.config.data, task, source)
    opened = open_task(data, "eval")
    for depth in depths:  # what does not fit is told before anything is read
        _rows(opened, seed, lengths[0], depth, range(1))

    config = run.config.model
    piece = piece_of(config.align)
    batch = min(examples, data.batch, rows_of(piece, config.vocab))
    read = reader(run.model, vocabulary(data)) if read is None else read
    cells: dict[tuple[int, float], Cell] = {}
    for length in lengths:
        for depth in depths:
            scores = []
            for first in range(0, examples, batch):
                signals.check()
                some = range(first, min(first + batch, examples))
                rows = _rows(opened, seed, length, depth, some)
                full = rows + rows[:1] * (batch - len(rows))  # all of one shape
                scores += score(read, full, piece)[: len(rows)]
                progress(len(rows) * length)
            cells[length, depth] = cell_of(scores)
    return Results(task, name, run.step, data.source, seed, lengths, depths, cells)


def _rows(opened: Opened, seed: int, length: int, depth: float, numbers: range) -> list[Example]:
    place = (length, round(depth * _FINE))
    return [opened.example(seeded(seed, "eval", *place, n), length, depth) for n in numbers]


def _data(own: DataConfig, task: Task, source: str | None) -> DataConfig:
    """The run's data with another task, where the run knows its vocabulary."""
    data = dataclasses.replace(own, task=task, source=own.source if source is None else source)
    kind, known, asked = to_dict(task)["kind"], vocabulary(own), vocabulary(data)
    if task.vocabulary() is None:
        require(
            own.task is None or own.task.vocabulary() is None,
            f"task {kind!r} is written in text, and the run was trained on {known} symbols of task "
            f"{own.task and to_dict(own.task)['kind']!r}: give a run that was trained on text.",
        )
    else:
        require(
            own.task is not None and own.task.vocabulary() == asked,
            f"task {kind!r} has {asked} symbols of its own, and the run was trained on "
            + ("text" if own.task is None or own.task.vocabulary() is None else f"{known} others")
            + f": train one with `miras train PRESET task={kind} task.vocab={asked}`"
            + ("." if own.task is None else f", or give vocab={known}."),
        )
    return data
