"""Where a run's first parameters come from, if not from its seed: another run's checkpoint."""

import os
import re
from typing import Any, NamedTuple

import jax
from flax import nnx
from rich.table import Table

from miras.config import require
from miras.errors import ConfigError
from miras.runtime.files import expanded
from miras.train.config import Parent
from miras.train.load import load_run
from miras.train.state import Params


class Fit(NamedTuple):
    """How a run's parameters fit those that another run starts with; shapes by dotted name.

    Attributes:
        taken: in both, of one shape.
        missing: that the run does not have.
        unexpected: that only the run has.
        reshaped: of two shapes, (the run's, the new one).
    """

    taken: dict[str, tuple[int, ...]]
    missing: dict[str, tuple[int, ...]]
    unexpected: dict[str, tuple[int, ...]]
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @property
    def whole(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def summary(self) -> str:
        """What differs, in a few words."""
        counts = [
            (len(names), what)
            for names, what in (
                (self.missing, "missing"),
                (self.unexpected, "unexpected"),
                (self.reshaped, "of another shape"),
            )
        ]
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def split_source(text: str) -> tuple[str, int | None]:
    """RUN[@STEP]: the absolute path of the folder, and the step where one is given.

    Raises:
        ConfigError: for an empty name, a step of a run that is no whole number, or a ~name of
            nobody.
    """
    require(text != "", "--from is empty, but has to name a run's folder.")
    run, at, step = text.rpartition("@")
    digits = re.fullmatch("[0-9]{1,18}", step) is not None
    if not at or os.path.exists(text) or not (digits or os.path.exists(expanded(run))):
        return str(expanded(text).absolute()), None
    require(digits, f"--from {run}@{step[:20]}: the step is no whole number, as in {run}@100.")
    return str(expanded(run).absolute()), int(step)


def parameters(parent: Parent) -> Params:
    """The parameters of a run at a step, a nested dict.

    Raises:
        ConfigError: where the folder holds no run, or no checkpoint of the step.
    """
    return nnx.to_pure_dict(nnx.state(load_run(parent.run, parent.step).model, nnx.Param))


def compare(found: Params, wanted: Params) -> Fit:
    """Parameters by name and shape, those of a run and the (abstract) ones to start with."""
    have, want = (
        {_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (found, wanted)
    )
    both = [name for name in want if name in have]
    return Fit(
        taken={name: want[name] for name in both if have[name] == want[name]},
        missing={name: shape for name, shape in want.items() if name not in have},
        unexpected={name: shape for name, shape in have.items() if name not in want},
        reshaped={n: (have[n], want[n]) for n in both if have[n] != want[n]},
    )


def merge(found: Params, own: Params, fit: Fit) -> Params:
    """A run's parameters where they fit, and the own ones elsewhere."""
    have = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found)}

    def pick(path: Any, leaf: Any) -> Any:
        return have[_name(path)] if _name(path) in fit.taken else leaf

    return jax.tree_util.tree_map_with_path(pick, own)


def require_fit(fit: Fit, parent: Parent) -> None:
    """Raise `ConfigError` unless all fits, or `parent` is partial and something does."""
    if not fit.taken or not (fit.whole or parent.partial):
        advice = "give the model of that run" + (
            ", or take what fits with --partial" if fit.taken else ", as no parameter fits"
        )
        raise ConfigError(
            f"the parameters of {parent.run} are not those of the model ({fit.summary}): {advice}."
        )


def table(fit: Fit) -> Table:
    """The parameters that do not fit."""
    made = Table("parameter", "run", "model", "", title="Parameters that differ")
    for name, shape in fit.missing.items():
        made.add_row(name, "", str(shape), "missing")
    for name, shape in fit.unexpected.items():
        made.add_row(name, str(shape), "", "unexpected")
    for name, (old, new) in fit.reshaped.items():
        made.add_row(name, str(old), str(new), "shape")
    return made


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
