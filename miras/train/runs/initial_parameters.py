"""Initial parameters from a checkpoint of another run, for fine-tuning."""

import os
import pathlib
import re
from typing import Any, NamedTuple

import jax
from flax import nnx
from rich.console import Console
from rich.table import Table

from miras.config import require
from miras.errors import ConfigError
from miras.runtime.files import expand_home
from miras.runtime.paths import is_remote
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.config import Parent, RunConfig
from miras.train.load import Run, load_run
from miras.train.objective_of import objective_of
from miras.train.program import TrainingProgram
from miras.train.state import Params, TrainState, create_from


class ParameterFit(NamedTuple):
    """How the parameters of a run fit a new model; shapes by dotted name.

    Attributes:
        taken: parameters of both, with the same shape.
        missing: parameters that only the new model has.
        unexpected: parameters that only the run has.
        reshaped: parameters of both with different shapes, (of the run, of the model).
        new: parameters of the model's own ends, which the run cannot have.
    """

    taken: dict[str, tuple[int, ...]]
    missing: dict[str, tuple[int, ...]]
    unexpected: dict[str, tuple[int, ...]]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    new: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all parameters fit."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def summary(self) -> str:
        """The number of parameters of each kind that do not fit."""
        counts = [
            (len(names), what)
            for names, what in (
                (self.missing, "missing"),
                (self.unexpected, "unexpected"),
                (self.reshaped, "of another shape"),
            )
        ]
        return ", ".join(f"{count} {what}" for count, what in counts if count)


class InitialParameters(NamedTuple):
    """The parameters of a parent run for a new one.

    Attributes:
        parent: the run that they are of.
        found: nested dict of NumPy arrays.
        fit: how they fit the new model.
    """

    parent: Parent
    found: Params
    fit: ParameterFit

    @property
    def summary(self) -> str:
        """One line for the log."""
        parent, fit = self.parent, self.fit
        text = f"starting with {len(fit.taken)} parameters of {parent.run} at step {parent.step}"
        text += f", with new {', '.join(fit.new)}" if fit.new else ""
        return f"{text}." if fit.whole else f"{text}; not taken: {fit.summary}."

    def state(self, program: TrainingProgram, own: TrainState) -> TrainState:
        """The state before the first step.

        Args:
            program: of the new run.
            own: its state with parameters of its seed, which remain where none are taken.
        """
        recipe = program.config.train
        make = jax.jit(
            lambda params: create_from(params, program.optimizer, recipe.seed, recipe.master),
            out_shardings=program.shardings,
        )
        return make(merge(self.found, own.params, self.fit))


def of_parent(
    config: RunConfig, checkpoints: pathlib.Path, like: Params, console: Console
) -> InitialParameters | None:
    """The parameters of a run's parent; None without a parent, or if the run has checkpoints.

    Args:
        config: of the new run.
        checkpoints: its folder of checkpoints.
        like: its parameters, which may be abstract.
        console: where a table of differences is printed if the parameters do not fit.

    Raises:
        ConfigError: the parameters do not fit.
    """
    parent = config.parent
    if parent is None or saved_steps(checkpoints):
        return None
    run = load_run(parent.run, parent.step)
    found = parameters_of(run)
    fit = compare(found, like, _ends(run.config), _ends(config))
    if not fit.whole:
        console.print(mismatch_table(fit))
    check_fit(fit, parent)
    return InitialParameters(parent, found, fit)


def parse_source(text: str) -> tuple[str, int | None]:
    """The absolute path or URL of the folder and the step, if any, of "RUN[@STEP]".

    Raises:
        ConfigError: the text is empty, the step is not an integer, or a ~name is of no user.
    """
    require(text != "", "--from is empty: give the folder of a run.")
    run, at, step = text.rpartition("@")
    digits = re.fullmatch("[0-9]{1,18}", step) is not None
    if is_remote(text):
        return (run, int(step)) if at and digits else (text, None)
    if not at or os.path.exists(text) or not (digits or os.path.exists(expand_home(run))):
        return str(expand_home(text).absolute()), None
    require(digits, f"--from {run}@{step[:20]}: the step is not a whole number, as in {run}@100.")
    return str(expand_home(run).absolute()), int(step)


def parameters_of(run: Run) -> Params:
    """The parameters of a run, a nested dict of NumPy arrays, which fit any mesh."""
    return jax.device_get(nnx.to_pure_dict(nnx.state(run.model, nnx.Param)))


def compare(
    found: Params,
    wanted: Params,
    found_ends: frozenset[str] = frozenset(),
    wanted_ends: frozenset[str] = frozenset(),
) -> ParameterFit:
    """Compare the parameters of a run with the (abstract) ones of a model, by name and shape.

    Args:
        found: of the run.
        wanted: of the model.
        found_ends: see `Objective.ends`; those that only the run has are not expected of the model.
        wanted_ends: those that only the model has are new.
    """
    have, want = (
        {_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (found, wanted)
    )
    dropped, new = found_ends - wanted_ends, wanted_ends - found_ends
    both = [name for name in want if name in have]
    lacking = {name: shape for name, shape in want.items() if name not in have}
    return ParameterFit(
        taken={name: want[name] for name in both if have[name] == want[name]},
        missing={name: shape for name, shape in lacking.items() if _end(name) not in new},
        unexpected={
            name: shape
            for name, shape in have.items()
            if name not in want and _end(name) not in dropped
        },
        reshaped={n: (have[n], want[n]) for n in both if have[n] != want[n]},
        new=tuple(name for name in lacking if _end(name) in new),
    )


def merge(found: Params, own: Params, fit: ParameterFit) -> Params:
    """The parameters of a run where they fit, and `own` elsewhere."""
    have = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)}

    def pick(path: Any, leaf: Any) -> Any:
        return have[_name(path)] if _name(path) in fit.taken else leaf

    return jax.tree_util.tree_map_with_path(pick, own)


def check_fit(fit: ParameterFit, parent: Parent) -> None:
    """Raise `ConfigError` unless all parameters fit, or some do and `parent` is partial."""
    if not fit.taken or not (fit.whole or parent.partial):
        advice = "use the model of that run" + (
            ", or take those that fit with --partial" if fit.taken else ", as no parameter fits"
        )
        raise ConfigError(
            f"the parameters of {parent.run} are not those of the model ({fit.summary}): {advice}."
        )


def mismatch_table(fit: ParameterFit) -> Table:
    """The parameters that do not fit."""
    table = Table("parameter", "run", "model", "", title="Parameters that differ")
    for name, shape in fit.missing.items():
        table.add_row(name, "", str(shape), "missing")
    for name, shape in fit.unexpected.items():
        table.add_row(name, str(shape), "", "unexpected")
    for name, (old, new) in fit.reshaped.items():
        table.add_row(name, str(old), str(new), "shape")
    return table


def _ends(config: RunConfig) -> frozenset[str]:
    return frozenset(objective_of(config.data).ends)


def _end(name: str) -> str:
    """The part of a model that a parameter belongs to."""
    return name.partition(".")[0]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
