"""Evaluates a run on a task at every length and depth."""

import dataclasses
from collections.abc import Callable, Sequence

from miras.analysis.eval.answers import (
    Predict,
    make_predictor,
    piece_length,
    rows_per_batch,
    score_rows,
)
from miras.analysis.eval.recall import Complete, make_completer, with_recall
from miras.analysis.eval.results import CellScore, TaskResults, cell_score
from miras.config import FrozenMapping, require, to_dict
from miras.data import check_language_model, vocabulary
from miras.data.config import DataConfig
from miras.data.task import check_depth
from miras.data.task_rows import open_task
from miras.runtime import signals
from miras.tasks import Example, Opened, Task, seeded
from miras.train import Run

_DEPTH_STEPS = 10**6  # depths that differ by less than 1 / this share the seeds of their rows


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
    predict: Predict | None = None,
    complete: Complete | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TaskResults:
    """Measure the exact match of a run's greedy answers, and the recall of tasks with references.

    The seeds of the rows differ from those of training and validation rows, and between cells; the
    background is held-out text. A row is read in pieces of about a thousand tokens, so that device
    memory does not grow with its length, except for attention.

    Args:
        run: from `load_run`.
        task: with its options; `task.depths`, `lengths` and `examples` are not used.
        lengths: tokens per row.
        depths: positions of the fact that is asked for, in [0, 1].
        examples: rows per length and depth, >= 1.
        seed: of the rows, in [0, 2**32).
        name: of the run, for the results.
        source: of the background text, as `data.source`; the run's if not given.
        predict: used instead of the run's model, if given; then nothing is completed without
            `complete`.
        complete: completes contexts, of tasks with `references`, instead of the run's model.
        progress: called with the number of tokens of each batch of rows.

    Raises:
        ConfigError: for a value out of range, a task whose vocabulary differs from the run's, text
            or files that cannot be used, or a length that is too short for the task.
        Interrupted: between two batches of rows, see `miras.runtime.signals`.
    """
    lengths, depths = tuple(sorted(set(lengths))), tuple(sorted(set(depths)))
    require(bool(lengths) and bool(depths), "give at least one length and one depth.")
    require(lengths[0] >= 1, f"length={lengths[0]} must be at least 1.")
    for depth in depths:
        check_depth(depth, "depth")
    require(examples >= 1, f"examples={examples} must be at least 1.")
    require(0 <= seed < 2**32, f"seed={seed} must lie in [0, 2**32).")
    check_language_model(run.config.data, "a task of answers")
    data = _data(run.config.data, task, source)
    opened = open_task(data, "eval")
    for depth in depths:  # raises before anything is read if the length is too short
        _rows(opened, seed, lengths[0], depth, range(1))

    config = run.config.model
    piece = piece_length(config.align)
    batch = min(examples, data.batch, rows_per_batch(piece, config.vocab))
    if predict is None:
        predict = make_predictor(run.model, vocabulary(data))
        complete = complete or make_completer(run, batch)
    cells: dict[tuple[int, float], CellScore] = {}
    for length in lengths:
        for depth in depths:
            scores = []
            for first in range(0, examples, batch):
                signals.check()
                some = range(first, min(first + batch, examples))
                rows = _rows(opened, seed, length, depth, some)
                full = rows + rows[:1] * (batch - len(rows))  # pad to one shape
                found = score_rows(predict, full, piece)[: len(rows)]
                if complete is not None:
                    found = with_recall(found, task, rows, complete, run.tokenizer)
                scores += found
                progress(len(rows) * length)
            cells[length, depth] = cell_score(scores)
    return TaskResults(task, name, run.step, data.source, seed, lengths, depths, cells)


def _rows(opened: Opened, seed: int, length: int, depth: float, numbers: range) -> list[Example]:
    cell = (length, round(depth * _DEPTH_STEPS))
    return [opened.example(seeded(seed, "eval", *cell, n), length, depth) for n in numbers]


def _data(own: DataConfig, task: Task, source: str | None) -> DataConfig:
    """The run's data config with another task, whose vocabulary must equal the run's."""
    require(
        source is not None or not own.mix or task.vocabulary() is not None,
        "the run was trained on a mixture of sources: give the background text with --data.",
    )
    source = own.source if source is None else source
    data = dataclasses.replace(own, task=task, source=source, mix=FrozenMapping())
    kind, known, asked = to_dict(task)["kind"], vocabulary(own), vocabulary(data)
    if task.vocabulary() is None:
        require(
            own.task is None or own.task.vocabulary() is None,
            f"task {kind!r} is text, but the run was trained on the {known} symbols of task "
            f"{own.task and to_dict(own.task)['kind']!r}: give a run that was trained on text.",
        )
    else:
        require(
            own.task is not None and own.task.vocabulary() == asked,
            f"task {kind!r} has its own {asked} symbols, but the run was trained on "
            + (
                "text"
                if own.task is None or own.task.vocabulary() is None
                else f"{known} other symbols"
            )
            + f": train one with `miras train PRESET task={kind} task.vocab={asked}`"
            + ("." if own.task is None else f", or give vocab={known}."),
        )
    return data
