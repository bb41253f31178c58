"""The training loop: which step logs, evaluates and saves, from the first step or a checkpoint."""

import contextlib
import pathlib
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from rich.console import Console

from miras.array_typing import Array
from miras.config import require, to_dict
from miras.data import make_loader, vocabulary
from miras.data.text import read_report
from miras.models.objective import Evaluation
from miras.parallel import make_mesh
from miras.parallel.batches import local_rows
from miras.runtime import processes, signals
from miras.runtime.figures import write_figure
from miras.runtime.watchdog import Watchdog
from miras.train.alarms import Alarms
from miras.train.checkpoints import checkpointer
from miras.train.checkpoints.checkpointer import Checkpoints
from miras.train.checkpoints.times import log_seconds
from miras.train.config import RunConfig
from miras.train.due import Timetable
from miras.train.evaluate import make_evaluator, sample
from miras.train.goodput import WallTime, carried
from miras.train.interval_means import IntervalMeans, Utilization
from miras.train.loggers.base import LoggerContext
from miras.train.loggers.jsonl import read_metrics
from miras.train.loggers.loggers import Loggers
from miras.train.loggers.registry import find
from miras.train.meter import Meter
from miras.train.nonfinite import NonFiniteError, Place, advice, locate
from miras.train.plot import Curve, loss_curves
from miras.train.prefetch import Prefetch
from miras.train.profiling import Profile
from miras.train.program import TrainingProgram
from miras.train.progress import Reporter
from miras.train.runs import initial_parameters
from miras.train.runs.run_folder import RunFolder
from miras.train.schedule import schedule
from miras.train.state import Params, TrainState, abstract
from miras.train.step import (
    Batch,
    StepMetrics,
    make_health_step,
    nats_per_target,
)
from miras.train.summary import summary_lines


class Result(NamedTuple):
    """The outcome of a run.

    Attributes:
        folder: of the run.
        state: the training state after the last step.
        resumed_from: the step of the checkpoint that was resumed; None for a new run.
        held_out: the evaluation on held-out data after the last step; of a task that has a test
            split, that on all of it.
    """

    folder: pathlib.Path | epath.Path
    state: TrainState
    resumed_from: int | None
    held_out: Evaluation


class DispatchedStep(NamedTuple):
    """A step whose computation has been dispatched and whose metrics have not been read."""

    step: int
    batches: Batch
    metrics: StepMetrics
    rate: Array | None  # the learning rate, if the means up to this step are logged


class Trainer:
    """One process's part of a run: the data, the compiled steps, and the run's outputs.

    The constructor opens the data and writes nothing.

    Args:
        config: the run.
        folder: of the run.
        console: where progress is printed.
        utilization: what the model FLOPs utilisation is computed from; None leaves it out.

    Attributes:
        read_reports: which files the data was read from.

    Raises:
        ConfigError: the text or the tokenizer cannot be used, or the vocabulary is too small.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        console: Console,
        utilization: Utilization | None = None,
    ):
        self.began, self.wall = time.time(), WallTime()
        self.config, self.recipe, self.utilization = config, config.train, utilization
        self.folder, self.console = folder, console
        _check_vocabulary(config)
        self.logger_classes = find(self.recipe.logger)
        self.mesh = make_mesh(config.mesh)
        self.program = TrainingProgram(config, self.mesh)
        self.graphdef, params = self.program.graphdef, self.program.params
        self.summary = list(summary_lines(config, params, folder.shown))
        like = nnx.to_pure_dict(params)
        self.initial = initial_parameters.of_parent(config, folder.checkpoints, like, console)
        self.schedule = schedule(self.recipe)
        align = config.model.align
        with read_report.collect_reports() as self.read_reports:
            rows = local_rows(self.mesh, config.data.batch)
            self.data = make_loader(config.data, "train", align=align, rows=rows)
            self.held_out = list(sample(config.data, align, self.recipe.eval_batches, rows))
        self.evaluate = make_evaluator(self.graphdef, config.data, self.mesh)
        self.health_step = make_health_step(self.graphdef, self.program.objective)

    def run(self) -> Result:
        """Restore or create the state, and do the remaining steps."""
        with jax.set_mesh(self.mesh):
            return self._run()

    def _run(self) -> Result:
        folder, total, program = self.folder, self.recipe.steps, self.program
        make = jax.jit(program.create, out_shardings=program.shardings)
        like = abstract(program.shapes, program.shardings)
        restored = checkpointer.restore(folder.checkpoints, like, self.data, fetch=folder.fetch)
        start = 0 if restored is None else restored.step
        with contextlib.ExitStack() as stack:
            reporter = stack.enter_context(Reporter(self.console, total, start, folder.log))
            self.watchdog = stack.enter_context(
                Watchdog(self.recipe.watchdog_minutes, folder.stacks, f"the run in {folder.shown}")
            )
            if restored is not None and restored.damaged:
                renamed = folder.rename_damaged(restored.damaged)
                reporter.warn(f"warning: {renamed}; resuming from step {start}.")
            if processes.first():
                self.wall.carry(carried(read_metrics(folder.metrics), start, self.began))
            self.profile = Profile(self.recipe.profile, total, start, folder.path)
            stack.enter_context(self.profile)
            checkpoints = Checkpoints(
                folder.checkpoints, self.recipe.keep, folder.check_writer, folder.shared
            )
            stack.callback(checkpoints.close)
            context = LoggerContext(folder.path, to_dict(self.config), start)
            loggers = Loggers(self.logger_classes, context, reporter.warn)
            stack.callback(loggers.close)
            if start < total:
                devices = self.mesh.devices.size
                loggers.write(start, "start", {"devices": devices, "seconds": self.wall.seconds()})
            for line in self.summary:
                reporter.print_line(line)
            if restored is None:
                state = make()
                if self.initial is not None:
                    reporter.print_line(self.initial.summary)
                    state = self.initial.state(program, state)
                with self.wall.spending("checkpoint"):
                    checkpoints.save(0, state, self.data)
            else:
                state = restored.state
                folder.empty(start)
                log_seconds(folder.checkpoints, "restore", start, restored.seconds)
                reporter.print_line(
                    f"the run in {folder.shown} is finished: {total} of {total} steps."
                    if start == total
                    else f"resuming from step {start} of {total} in {folder.shown}."
                )
            if processes.decide(lambda: self._evaluation_is_missing(start)):
                self._evaluate(start, state.params, loggers, reporter)
            if start < total:
                with processes.collective(), self._prefetch(total - start) as data:
                    state = self._train(state, start, data, checkpoints, loggers, reporter)
        if processes.first():
            self._plot(reporter)
        return Result(
            folder=folder.shown,
            state=state,
            resumed_from=None if restored is None else start,
            held_out=self.evaluate(state.params, self._reported()),
        )

    def _reported(self) -> Iterable[Batch]:
        """The held-out batches of which a finished run reports the metrics."""
        data = self.config.data
        if data.task is None or data.task.reports == "validation":
            return self.held_out
        rows = local_rows(self.mesh, data.batch)
        return sample(data, self.config.model.align, None, rows, split=data.task.reports)

    def _prefetch(self, updates: int) -> Prefetch:
        batch, accumulate = self.config.data.batch, self.recipe.accumulate
        layout = self.program.layout
        return Prefetch(self.data, self.mesh, batch, accumulate, updates, layout=layout)

    def _train(
        self,
        state: TrainState,
        start: int,
        data: Prefetch,
        checkpoints: Checkpoints,
        loggers: Loggers,
        reporter: Reporter,
    ) -> TrainState:
        """The state after the steps from `start` on, with what is due after each of them."""
        clock = time.monotonic()
        with self.wall.spending("compile"):
            run = self.program.compile()
        compile_seconds = time.monotonic() - clock
        reporter.print_line(f"compiled the step in {compile_seconds:.1f} s.")
        alive: Any = jax.device_put(np.True_, self.program.replicated)
        devices, bits = self.mesh.devices.size, self.program.objective.prints_bits
        means = IntervalMeans(devices, self.utilization, compile_seconds=compile_seconds)
        alarms = Alarms(self.config.model, read_metrics(self.folder.metrics))
        meter = Meter(means, self.wall, alarms, loggers, reporter, bits)
        previous: DispatchedStep | None = None
        saved = start
        timetable = Timetable(self.recipe, checkpoints.age)
        timetable.announce(start + 1)
        self.wall.switch("steps")

        def finish(done: DispatchedStep) -> None:
            clock = time.monotonic()
            metrics = self._finish_step(done, state.params, checkpoints)
            meter.step(done.step, metrics, time.monotonic() - clock)
            self.watchdog.beat()
            if done.rate is not None:
                meter.log(done.step, float(done.rate))

        for step in range(start + 1, self.recipe.steps + 1):
            if saved == step - 1:
                self._exit_if_interrupted(saved, checkpoints)
            batches = data.get(alive.is_ready)
            meter.data(data.waited)
            timetable.announce(step + 1)
            self.profile.before(step, run)
            state, metrics = run(state, batches, alive)
            alive = metrics.finite
            # The host waits for a step, and logs it, only after it has dispatched the next one, so
            # that the devices always have work; it waits for the last one only for what needs it.
            if previous is not None:
                finish(previous)
            due = timetable.due(step)
            save, profile = due.save or signals.poll() is not None, self.profile.bounds(step)
            due = due._replace(save=save, profile=profile)
            # The rate is computed on the device, so it is dispatched before the next step.
            rate = self._rate(step, metrics) if due.log else None
            previous = DispatchedStep(step, batches, metrics, rate)
            if not due.now:
                continue
            finish(previous)
            previous = None
            if profiled := self.profile.after(step):
                reporter.print_line(profiled)
            if due.health:
                health = self._measure_health(state.params, _batch(batches, 0))
                meter.health(step, health)
            interrupted = due.held_out and not self._try_evaluate(step, state, loggers, reporter)
            if due.save or interrupted:
                with meter.checkpoint():
                    checkpoints.save(step, state, data)
                saved = step
            meter.resume()
        checkpoints.wait()
        self._exit_if_interrupted(self.recipe.steps, checkpoints)
        return state

    def _rate(self, step: int, metrics: StepMetrics) -> Array:
        """The learning rate of an update, to which skipped ones do not count."""
        skipped = 0 if metrics.window is None else metrics.window.skipped
        return jnp.asarray(self.schedule(step - 1 - skipped))

    def _exit_if_interrupted(self, saved: int, checkpoints: Checkpoints) -> None:
        """Raise `Interrupted` after a signal; `saved` is the current step, which is saved."""
        if signals.requested() is not None:
            checkpoints.wait()  # all processes do, so that all raise the error of one
        signals.check(
            f" after step {saved} of {self.recipe.steps}, which is saved in {self.folder.shown}: "
            "repeat the command to resume from there"
        )

    def _evaluation_is_missing(self, step: int) -> bool:
        """Whether a resumed run was interrupted in the evaluation that is due after `step`."""
        if step == 0 or (step % self.recipe.eval_every and step != self.recipe.steps):
            return False
        lines = read_metrics(self.folder.metrics)
        return not any(line["step"] == step and line.get("kind") == "held_out" for line in lines)

    def _try_evaluate(
        self, step: int, state: TrainState, loggers: Loggers, reporter: Reporter
    ) -> bool:
        """Evaluate; False after an interrupt, which leaves it to the resumed run."""
        try:
            self._evaluate(step, state.params, loggers, reporter)
        except signals.Interrupted:
            return False
        return True

    def _measure_health(self, params: Params, batch: Batch) -> dict[str, Any]:
        with self.wall.spending("evaluate"):
            return _by_layer(jax.device_get(self.health_step(params, batch))._asdict())

    def _evaluate(self, step: int, params: Params, loggers: Loggers, reporter: Reporter) -> None:
        with self.wall.spending("evaluate"):
            found = self.evaluate(params, self.watchdog.over(self.held_out))
        loggers.write(step, "held_out", found._asdict())
        reporter.print_line(f"step {step}: {found.summary}")

    def _finish_step(
        self, done: DispatchedStep, params: Params, checkpoints: Checkpoints
    ) -> StepMetrics:
        """Wait for a step; its metrics, on the host.

        Raises:
            NonFiniteError: the step was not finite.
        """
        metrics = jax.device_get(done.metrics)
        if metrics.finite:
            return metrics
        checkpoints.wait()
        model, own = self.config.model, self.program.objective
        places = (
            locate(self.graphdef, self.health_step, params, _batch(done.batches, i), model, own)
            for i in range(self.recipe.accumulate)
        )
        place = next(filter(None, places), Place("the update, whose size is not finite"))
        raise NonFiniteError(
            f"step {done.step} is not finite (loss {nats_per_target(metrics.totals):g}, gradient "
            f"norm {metrics.gradient_norm:g}), first in {place.text}; the step was not applied and "
            f"{checkpointer.last_good(self.folder.checkpoints)}: "
            f"{advice(self.config.model, place, done.step)}"
        )

    def _plot(self, reporter: Reporter) -> None:
        own = self.program.objective
        curve = Curve(own.curve, own.label, own.rows)
        lines, title = read_metrics(self.folder.metrics), f"Run {self.folder.path.name}"
        if lines:
            write_figure(self.folder.plot, lambda: loss_curves(lines, title, curve), reporter.warn)


def _batch(batches: Batch, index: int) -> Batch:
    return {name: array[index] for name, array in batches.items()}


def _check_vocabulary(config: RunConfig) -> None:
    data, size = config.data, vocabulary(config.data)
    text = data.task is None or data.task.vocabulary() is None
    owner = f"tokenizer {data.tokenizer!r}" if text else f"data.task.vocab={size}"
    require(
        config.model.vocab >= size,
        f"model.vocab={config.model.vocab} is too small for {owner}: use model.vocab={size}.",
    )


def _by_layer(value: Any) -> Any:
    """Arrays [layers] as lists."""
    if isinstance(value, dict):
        return {name: _by_layer(item) for name, item in value.items()}
    return value.tolist()
