"""Evaluates a run on the tasks of EleutherAI's lm-eval, and tabulates the results.

Importing it does not need lm-eval; `evaluate_harness` does.
"""

import contextlib
import dataclasses
import difflib
import importlib.util
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from miras.config import require
from miras.errors import ConfigError
from miras.runtime import signals
from miras.train import Run

LIBRARY = "lm_eval"
_ENV = "DISABLE_MULTIPROC"  # a process with jax's threads cannot be forked safely


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """A metric of a task.

    Attributes:
        task: its name in lm-eval.
        metric: its name in lm-eval, with the filter after a slash if there is one.
        value: usually in [0, 1], or a perplexity.
        error: standard error of the value; None if lm-eval gives none.
        items: number of items.
    """

    task: str
    metric: str
    value: float
    error: float | None
    items: int | None


@dataclasses.dataclass(frozen=True)
class HarnessResults:
    """The evaluation of a run by lm-eval.

    Attributes:
        run: the run's folder, as given.
        step: number of updates of the model.
        limit: most items of a task; None for all.
        scores: in lm-eval's order.
        version: of lm-eval.
        versions: of each task.
    """

    run: str
    step: int
    limit: int | None
    scores: tuple[TaskScore, ...]
    version: str
    versions: dict[str, Any]

    def to_json(self) -> str:
        """The results as JSON text."""
        return json.dumps({"lm_eval": self.version} | dataclasses.asdict(self), indent=2) + "\n"

    def table(self) -> Table:
        """A row for each metric of each task."""
        made = Table(box=box.SIMPLE, pad_edge=False)
        for title in ("task", "metric"):
            made.add_column(title)
        for title in ("value", "standard error", "items"):
            made.add_column(title, justify="right")
        for score in self.scores:
            error = "" if score.error is None else f"{score.error:.4f}"
            items = "" if score.items is None else f"{score.items:,}"
            made.add_row(score.task, score.metric, f"{score.value:.4f}", error, items)
        return made


def evaluate_harness(
    run: Run,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    include: str | None = None,
    data: str | None = None,
    name: str = "",
    progress: Callable[[int], None] = lambda count: None,
) -> HarnessResults:
    """Evaluate a run on tasks, groups or tags of lm-eval.

    Args:
        run: from `load_run`, trained on text.
        tasks: names that lm-eval knows or that are in `include`, or paths of YAML files.
        limit: most items of each task, >= 1; all if not given.
        include: folder of task files, which replace tasks of lm-eval of the same names.
        data: folder that task files can read from, which they get as `data_dir`.
        name: of the run, for the results.
        progress: called with the number of requests of each batch.

    Raises:
        ConfigError: lm-eval is not installed, a task is unknown or its data cannot be read, or the
            run has no text.
        Interrupted: between two batches, see `miras.runtime.signals`.
    """
    check_installed()
    require(bool(tasks), "--lm-eval names no task: give some, such as hellaswag,piqa.")
    require(limit is None or limit >= 1, f"limit={limit} must be at least 1.")
    from lm_eval import __version__
    from lm_eval.evaluator import evaluate

    from miras.analysis.eval.harness_model import HarnessModel

    model = HarnessModel(run, progress)
    with _global_state_kept():
        loaded = load_tasks(tasks, include, data)
        found: Any = evaluate(lm=model, task_dict=loaded, limit=limit, log_samples=False)
    return HarnessResults(
        name, run.step, limit, tuple(_scores(found)), __version__, dict(found["versions"])
    )


def check_installed() -> None:
    """Raise `ConfigError` if lm-eval is not installed."""
    if importlib.util.find_spec(LIBRARY) is None:
        raise ConfigError(
            "--lm-eval needs the library lm-eval: install it with pip install 'miras-jax[eval]'."
        )


def load_tasks(names: Sequence[str], include: str | None, data: str | None) -> Any:
    """The tasks and groups that names stand for, as `TaskManager.load` of lm-eval gives them.

    Examples in a prompt are drawn with lm-eval's seed; there are none if a task does not say how
    many. Tasks in `include` are looked up first, since lm-eval takes seconds to list its own.

    Raises:
        ConfigError: a task is unknown, or its code or data cannot be read.
    """
    from lm_eval.defaults import DEFAULT_OTHER_SEED
    from lm_eval.tasks import TaskManager

    require(
        include is None or os.path.isdir(include),
        f"--include-path {include!r} is not a folder: give the folder of task files.",
    )
    require(
        data is None or os.path.isdir(data),
        f"--data {data!r} is not a folder: give the folder that the task files read.",
    )
    metadata: Any = None if data is None else {"data_dir": os.path.abspath(data)}
    manager = TaskManager(include_path=include, include_defaults=False, metadata=metadata)
    if not all(name in manager.all_tasks or os.path.isfile(name) for name in names):
        manager = TaskManager(include_path=include, metadata=metadata)
    loaded = manager.load([built for name in names for built in _load(manager, name)])
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return loaded


def _load(manager: Any, name: str) -> list[Any]:
    known = manager.all_tasks
    if name not in known and not os.path.isfile(name):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"unknown lm-eval task {name!r}: {hint}`lm_eval ls tasks` lists all; --include-path "
            "adds a folder of task files."
        )
    try:
        built = manager.load([name])
    except signals.Interrupted:
        raise
    except ImportError as error:
        raise ConfigError(
            f"lm-eval task {name!r} needs another package ({error}): install it, or choose another "
            "task."
        ) from error
    except Exception as error:  # what the data library and the code of a task raise is open
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(
            f"lm-eval task {name!r} cannot be loaded ({reason}): its data must be on the network "
            "or in the cache of the Hugging Face libraries. Without a network, give task files "
            "that name files on disk by --include-path, and the folder of these files by --data."
        ) from error
    children = {child for some in built.get("group_map", {}).values() for child in some}
    groups = [group for key, group in built["groups"].items() if key not in children]
    return groups or list(built["tasks"].values())


@contextlib.contextmanager
def _global_state_kept() -> Iterator[None]:
    """Keep lm-eval from printing hints and starting processes; restore what tasks draw from."""
    states, log, name = (random.getstate(), np.random.get_state()), logging.getLogger(LIBRARY), _ENV
    before, level = os.environ.get(name), log.level
    os.environ[name] = "1"
    log.setLevel(logging.ERROR)
    random.seed(0)  # as lm-eval does
    np.random.seed(1234)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        log.setLevel(level)
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _scores(found: dict[str, Any]) -> Iterator[TaskScore]:
    """The metrics of lm-eval's results, whose keys are "METRIC,FILTER"."""
    for task, metrics in found["results"].items():
        count = found.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in metrics.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{filtered}")
            shown = metric if filtered == "none" else f"{metric}/{filtered}"
            known = isinstance(error, int | float)
            yield TaskScore(task, shown, float(value), float(error) if known else None, count)
