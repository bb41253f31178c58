"""The contract of a task: a generator of rows whose answers are known.

What a row is made of and how it is asked for stands here; the tasks have a file each. Rows are kept
on disk by `miras.data.task_rows` and measured by `miras.analysis.eval`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import numpy as np

from miras.config import Config, require
from miras.config.registry import Registry

if TYPE_CHECKING:
    from miras.data.tokenizers.base import Tokenizer

ROLES = ("train", "validation", "eval")
"""What rows are for; each role draws from seeds of its own."""


class Example(NamedTuple):
    """One row.

    The model reads `inputs` and must predict `targets[i]` at `positions[i]`; its other predictions
    do not count. The answer is right where all of them are.

    Attributes:
        inputs: int32 [length].
        positions: int32 [n], ascending, in [0, length).
        targets: int32 [n].
    """

    inputs: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


Make = Callable[[np.random.Generator, int, float | None], Example]


class Documents(Protocol):
    """Texts that a task may read, and a string that names their content."""

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class Material(NamedTuple):
    """What a run gives a task to make rows of.

    Attributes:
        tokenizer: the run's.
        documents: opens the background text of the role: training documents for "train",
            held-out ones for the others.
        role: one of `ROLES`.
    """

    tokenizer: Tokenizer
    documents: Callable[[], Documents]
    role: str


class Opened(NamedTuple):
    """A task that has opened what it reads.

    Attributes:
        example: makes one row of a number of tokens, with what it asks for at a depth; None
            leaves the depth to the task. All chance comes from the generator it is given.
        fingerprint: a string that names the text and files that rows are made of.
    """

    example: Make
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Task(Config):
    """A task: rows of any length, with what they ask for at any depth.

    To add one: subclass with frozen fields, implement `open`, decorate with
    `@miras.tasks.register("kind")`. A task that is not written in text also says so in
    `vocabulary`. A row has exactly the length asked for, and depends on nothing but the
    config, the material and the generator of random numbers. Depth is where in the context that
    which is asked for stands: 0 at its start, 1 at its end.

    Attributes:
        examples: rows to train on, >= 1; they repeat, in another order each time.
        depths: of the rows of a run, each drawn from these, in [0, 1]; None leaves them to the
            task, as its docstring says.

    Raises:
        ConfigError: for a value out of range.
    """

    registry: ClassVar[Registry[Task]] = Registry("task", "miras.tasks", members="miras.tasks")

    examples: int = 4096
    depths: tuple[float, ...] | None = None

    def validate(self) -> None:
        """Check the ranges above."""
        require(self.examples >= 1, f"task.examples={self.examples} must be at least 1.")
        require(self.depths != (), "task.depths=() is empty: give some in [0, 1], or none.")
        for depth in self.depths or ():
            check_depth(depth, "task.depths")

    def vocabulary(self) -> int | None:
        """Size of the task's own vocabulary, or None where rows are text in the run's tokens."""
        return None

    def open(self, material: Material) -> Opened:
        """Open what rows are made of.

        Raises:
            ConfigError: for files that cannot be used; `Opened.example` raises it for a length in
                which the task does not fit.
        """
        raise NotImplementedError

    def row(self, opened: Opened, random: np.random.Generator, length: int) -> Example:
        """A row of a run, at one of `depths`."""
        depth = None if self.depths is None else float(random.choice(self.depths))
        return opened.example(random, length, depth)


register = Task.registry.register


def seeded(seed: int, role: str, *place: int) -> np.random.Generator:
    """The generator of one row, independent of that of any other seed, role or place."""
    return np.random.default_rng((seed, ROLES.index(role), *place))


def check_depth(depth: float, name: str) -> None:
    """Refuse a depth outside [0, 1]."""
    require(
        0 <= depth <= 1,
        f"{name}={depth:g} must lie in [0, 1]: 0 is the start of the context, 1 its end.",
    )


def check_length(length: int, least: int, what: str) -> None:
    """Refuse a row too short for what it must hold."""
    require(length >= least, f"length={length} is too short for {what}: use at least {least}.")
