"""The training loop: what happens when, from the first step or from the newest checkpoint."""

import contextlib
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.console import Console

from miras.config import require, to_dict
from miras.config.trust import trusting
from miras.data import make_loader, vocabulary
from miras.data.text import read_report
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.figures import write_picture
from miras.runtime.files import write_whole
from miras.runtime.terminal import tolerant
from miras.train.accuracy import Answers
from miras.train.checkpoints import checkpointer
from miras.train.checkpoints.checkpointer import Checkpoints
from miras.train.config import RunConfig
from miras.train.evaluate import HeldOut, make_measure, sample
from miras.train.interval_means import Window
from miras.train.loggers.base import Opening, Sinks, find
from miras.train.loggers.jsonl import read_metrics
from miras.train.nonfinite import NonFiniteError, locate
from miras.train.optimizer import optimizer_of, schedule
from miras.train.plot import loss_curves
from miras.train.progress import Reporter
from miras.train.runs import initial_parameters, provenance
from miras.train.runs.run_folder import RunFolder
from miras.train.state import Params, TrainState, abstract, begin, create, place, structure
from miras.train.step import (
    Batch,
    Measured,
    make_health_step,
    make_train_step,
    nats_per_target,
)
from miras.train.summary import heading


class Result(NamedTuple):
    """How a run ended.

    Attributes:
        folder: where it lies.
        state: the training state after the last step.
        resumed_from: the step it went on from; None for a new run.
        held_out: how good the run is on what it holds out after the last step.
    """

    folder: pathlib.Path
    state: TrainState
    resumed_from: int | None
    held_out: HeldOut | Answers


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    console: Console | None = None,
    trust_plugins: bool = False,
) -> Result:
    """Train a model, or go on where the run in a folder stopped.

    A run that goes on ends with the same parameters as one that was never stopped, bit for bit on
    the same machine.

    Args:
        config: the run.
        out: its folder; made if need be.
        console: where progress is told; the standard output if not given.
        trust_plugins: run the code in the folder's `plugins/`, also where this user has not trained
            it.

    Raises:
        ConfigError: for text that cannot be used, a folder of another run or in use, or a disk that
            is full or read-only. Checkpoints already written stay as they are.
        NonFiniteError: where a step was not finite; it is neither applied nor saved.
        Interrupted: behind SIGINT or SIGTERM (in the main thread), once the step under way is done
            and saved; it is a `SystemExit` of code 130 or 143. A second signal ends at once.
    """
    folder = RunFolder(out)
    console = console or Console()
    with trusting(trust_plugins):
        config = folder.check(config)
        digest = None if folder.config.exists() else provenance.tokenizer_hash(config)
        session = Session(_own(folder, config), folder, console)
    with folder.locked():
        with trusting(trust_plugins):
            folder.check(config)  # another process may have been first
        folder.write_config(config, digest)
        try:
            write_whole(folder.data, read_report.to_json(session.read))
            with signals.handled(), tolerant(console):
                result = session.run()
            if not folder.origin.exists():  # of an earlier version; the checkpoint knew its data
                provenance.keep(folder.path, config, provenance.tokenizer_hash(config))
            return result
        except OSError as error:
            raise ConfigError(
                f"the run in {folder.path} stopped at a disk error ({error}); "
                f"{checkpointer.last_good(folder.checkpoints)}: free space or make the folder "
                "writable, and give the same command to go on."
            ) from error


def _own(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The config with the folder's own tokenizer; a task stays as given, which names its rows."""
    data = dataclasses.replace(provenance.own(folder.path, config).data, task=config.data.task)
    return dataclasses.replace(config, data=data)


class Session:
    """One process's share of a run: what it reads, computes with and writes.

    Building one opens the text and writes nothing.

    Raises:
        ConfigError: for text or a tokenizer that cannot be used.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, console: Console):
        self.config, self.recipe = config, config.train
        self.folder, self.console = folder, console
        _check_vocabulary(config)
        self.sinks = find(self.recipe.logger)
        self.graphdef, params = structure(config.model)
        self.heading = list(heading(config, params, folder.path))
        self.first = self._first_parameters(nnx.to_pure_dict(params))
        self.optimizer = optimizer_of(self.recipe, params)
        self.schedule = schedule(self.recipe)
        align = config.model.align
        with read_report.collect() as self.read:
            self.data = make_loader(config.data, "train", align=align)
            self.held_out = list(sample(config.data, align, self.recipe.eval_batches))
        self.train_step = make_train_step(self.graphdef, self.optimizer)
        self.measure = make_measure(self.graphdef, config.data)
        self.health_step = make_health_step(self.graphdef)

    def run(self) -> Result:
        """Restore or create the state, and take the steps that remain."""
        folder, total = self.folder, self.recipe.steps
        make = jax.jit(lambda: create(self.config.model, self.optimizer, self.recipe.seed))
        like = abstract(jax.eval_shape(make))
        restored = checkpointer.restore(folder.checkpoints, like, self.data)
        start = 0 if restored is None else restored.step
        with contextlib.ExitStack() as stack:
            reporter = stack.enter_context(Reporter(self.console, total, start, folder.log))
            if restored is not None and restored.damaged:
                aside = checkpointer.set_aside(folder.checkpoints, restored.damaged)
                reporter.warn(f"warning: {aside}; going on from step {start}.")
            checkpoints = Checkpoints(folder.checkpoints, self.recipe.keep)
            stack.callback(checkpoints.close)
            opening = Opening(folder.path, to_dict(self.config), start)
            metrics = Sinks(self.sinks, opening, reporter.warn)
            stack.callback(metrics.close)
            for line in self.heading:
                reporter.say(line)
            if restored is None:
                state = place(make() if self.first is None else self._begin(make(), reporter))
                checkpoints.save(0, state, self.data)
            else:
                state = restored.state
                reporter.say(
                    f"the run in {folder.path} is finished: {total} of {total} steps."
                    if start == total
                    else f"going on from step {start} of {total} in {folder.path}."
                )
            if self._owes_measurement(start):
                self._measure_held_out(start, state.params, metrics, reporter)
            if start < total:
                state = self._steps(state, start, checkpoints, metrics, reporter)
        what = "text" if self.config.data.task is None else "answers"
        lines, title = read_metrics(folder.metrics), f"Run {folder.path.name}"
        if lines:
            write_picture(folder.plot, lambda: loss_curves(lines, title, what), reporter.warn)
        return Result(
            folder=folder.path,
            state=state,
            resumed_from=None if restored is None else start,
            held_out=self.measure(state.params, self.held_out),
        )

    def _first_parameters(self, like: Params) -> tuple[Params, initial_parameters.Fit] | None:
        """What a new run takes of another one; None where it takes nothing.

        Raises:
            ConfigError: where the parameters do not fit, after a table of those.
        """
        source = self.config.parent
        if source is None or checkpointer.saved_steps(self.folder.checkpoints):
            return None
        found = initial_parameters.parameters(source)
        fit = initial_parameters.compare(found, like)
        if not fit.whole:
            self.console.print(initial_parameters.table(fit))
        initial_parameters.require_fit(fit, source)
        return found, fit

    def _begin(self, own: TrainState, reporter: Reporter) -> TrainState:
        """The state before the first step of a run that starts from another one."""
        assert self.first is not None
        assert self.config.parent is not None
        found, fit = self.first
        source = self.config.parent
        taken = f"starting with {len(fit.taken)} parameters of {source.run} at step {source.step}"
        reporter.say(f"{taken}." if fit.whole else f"{taken}; not taken: {fit.summary}.")
        make = jax.jit(lambda params: begin(params, self.optimizer, self.recipe.seed))
        return make(initial_parameters.merge(found, own.params, fit))

    def _steps(
        self,
        state: TrainState,
        start: int,
        checkpoints: Checkpoints,
        metrics: Sinks,
        reporter: Reporter,
    ) -> TrainState:
        recipe = self.recipe
        window = Window()
        alive = place(jnp.array(True))
        before: Taken | None = None
        saved = start
        for step in range(start + 1, recipe.steps + 1):
            if saved == step - 1:
                self._end_if_asked(saved)
            batches = self._next_batches()
            state, measured = self.train_step(state, batches, alive)
            alive = measured.finite
            # A step is looked at once the next is dispatched, so that the device has no pause.
            if before is not None:
                self._settle(before, state.params, checkpoints, window)
            before = Taken(step, batches, measured)
            log, held_out, health, save = (
                step % every == 0 or step == recipe.steps
                for every in (
                    recipe.log_every,
                    recipe.eval_every,
                    recipe.health_every,
                    recipe.checkpoint_every,
                )
            )
            save = save or self._is_late(checkpoints) or signals.requested() is not None
            if log or held_out or health or save or step == start + 1:
                self._settle(before, state.params, checkpoints, window)
                before = None
            if step == start + 1 and not log:
                window.restart_clock()  # the first step compiled
            reporter.step(step)
            if log:
                values = window.means() | {
                    "learning_rate": float(jnp.asarray(self.schedule(step - 1)))
                }
                metrics.write(step, "train", values)
                bits = values["bits_per_byte"] if self.config.data.task is None else None
                reporter.measured(step, values["loss"], bits, values["tokens_per_second"])
                window = Window()
            if health:
                found = self.health_step(state.params, _batch(batches, 0))
                metrics.write(step, "health", _by_layer(jax.device_get(found)._asdict()))
            if held_out:
                try:
                    self._measure_held_out(step, state.params, metrics, reporter)
                except signals.Interrupted:
                    save = True  # and it is measured when the run goes on
            if save:
                checkpoints.save(step, state, self.data)
                saved = step
            if health or held_out or save:
                window.restart_clock()
        self._end_if_asked(recipe.steps)
        return state

    def _is_late(self, checkpoints: Checkpoints) -> bool:
        """Whether the newest checkpoint is older than `checkpoint_minutes`."""
        minutes = self.recipe.checkpoint_minutes
        return minutes is not None and checkpoints.age() >= 60 * minutes

    def _end_if_asked(self, saved: int) -> None:
        """End the run if a signal has asked for it; step `saved` is the newest, and saved."""
        signals.check(
            f" after step {saved} of {self.recipe.steps}, which is saved in {self.folder.path}: "
            "the same command goes on from there"
        )

    def _owes_measurement(self, step: int) -> bool:
        """Whether a run that goes on from a step was stopped while it measured that step."""
        if step == 0 or (step % self.recipe.eval_every and step != self.recipe.steps):
            return False
        lines = read_metrics(self.folder.metrics)
        return not any(line["step"] == step and line.get("kind") == "held_out" for line in lines)

    def _measure_held_out(
        self, step: int, params: Params, metrics: Sinks, reporter: Reporter
    ) -> None:
        quality = self.measure(params, self.held_out)
        metrics.write(step, "held_out", quality._asdict())
        reporter.say(f"step {step}: {quality.summary}")

    def _next_batches(self) -> Batch:
        """The batches of one update, [accumulate, batch, sequence]."""
        batches = [next(self.data) for _ in range(self.recipe.accumulate)]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}

    def _settle(
        self, taken: "Taken", params: Params, checkpoints: Checkpoints, window: "Window"
    ) -> None:
        """Wait for a step, add it up, and stop the run if it was not finite."""
        measured = jax.device_get(taken.measured)
        if measured.finite:
            window.add(measured, int(np.count_nonzero(taken.batches["segment_ids"])))
            return
        checkpoints.wait()
        layers = self.config.model.memory_layers
        places = (
            locate(self.graphdef, self.health_step, params, _batch(taken.batches, i), layers)
            for i in range(self.recipe.accumulate)
        )
        place = next(filter(None, places), "the update, whose size is not finite")
        raise NonFiniteError(
            f"step {taken.step} is not finite (loss {nats_per_target(measured.totals):g}, gradient "
            f"norm {measured.gradient_norm:g}), first in {place}; the step was not applied and "
            f"{checkpointer.last_good(self.folder.checkpoints)}: try a lower train.learning_rate "
            "or train.clip, in another folder."
        )


class Taken(NamedTuple):
    """A step that was dispatched."""

    step: int
    batches: Batch
    measured: Measured


def _batch(batches: Batch, index: int) -> Batch:
    return {name: array[index] for name, array in batches.items()}


def _check_vocabulary(config: RunConfig) -> None:
    data, size = config.data, vocabulary(config.data)
    text = data.task is None or data.task.vocabulary() is None
    whose = f"tokenizer {data.tokenizer!r}" if text else f"data.task.vocab={size}"
    require(
        config.model.vocab >= size,
        f"model.vocab={config.model.vocab} is too small for {whose}: use model.vocab={size}.",
    )


def _by_layer(value: Any) -> Any:
    """Arrays [layers] as lists."""
    if isinstance(value, dict):
        return {name: _by_layer(item) for name, item in value.items()}
    return value.tolist()
