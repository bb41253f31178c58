"""The contract of a task that generates rows of tokens with known answers.

The tasks themselves are in `miras.tasks`. `task_rows` stores their rows on disk, and
`miras.analysis.eval` evaluates models on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from miras.config import require, to_dict
from miras.config.base import added
from miras.data.config import TaskConfig
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.data.tokenizers.base import Tokenizer

ROLES = ("train", "validation", "eval")
"""What rows are used for; each role has its own seeds."""


class Example(NamedTuple):
    """A row.

    The model reads `inputs` and must predict `targets[i]` at `positions[i]`; other predictions do
    not count. The answer is correct if all targets are predicted.

    Attributes:
        inputs: int32 [length].
        positions: int32 [n], ascending, in [0, length).
        targets: int32 [n].
    """

    inputs: np.ndarray
    positions: np.ndarray
    targets: np.ndarray


MakeExample = Callable[[np.random.Generator, int, float | None], Example]


class Documents(Protocol):
    """Documents that a task may read; `fingerprint` identifies their content."""

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class Material(NamedTuple):
    """The inputs from which a task makes rows.

    Attributes:
        tokenizer: of the run.
        documents: opens the background text: training documents for the role "train", held-out
            documents for the others.
        role: one of `ROLES`.
    """

    tokenizer: Tokenizer
    documents: Callable[[], Documents]
    role: str


class Opened(NamedTuple):
    """A task whose inputs are open.

    Attributes:
        example: makes a row from a random generator, its length in tokens and a depth; None
            leaves the depth to the task.
        fingerprint: a string that identifies the text and the files that rows are made of.
    """

    example: MakeExample
    fingerprint: str = ""


@dataclasses.dataclass(frozen=True)
class Task(TaskConfig):
    """A task of a language model: rows of any length, with the queried information at any depth.

    To add one: derive a frozen dataclass, implement `open`, and decorate it with
    `@miras.tasks.register("kind")`. A task with its own vocabulary also overrides `vocabulary`. A
    row has exactly the requested length and depends only on the config, the material and the random
    generator. The depth is the position of the queried information in the context: 0 at its start,
    1 at its end.

    Attributes:
        examples: training rows, >= 1; they repeat in another order in each epoch.
        depths: the depth of each row of a run is drawn from these, in [0, 1]; None leaves it to the
            task, as its docstring describes.
        lengths: the length of each row of a run is drawn from these, >= 1 and at most
            `data.sequence`, and padding after the answer fills it; None for `data.sequence`.

    Raises:
        ConfigError: a value is out of range.
    """

    examples: int = 4096
    depths: tuple[float, ...] | None = None
    lengths: tuple[int, ...] | None = added(None)

    def validate(self) -> None:
        """Check the ranges above."""
        require(self.examples >= 1, f"task.examples={self.examples} must be at least 1.")
        require(self.depths != (), "task.depths=() is empty: give some in [0, 1], or none.")
        for depth in self.depths or ():
            check_depth(depth, "task.depths")
        require(self.lengths != (), "task.lengths=() is empty: give some tokens, or none.")
        for length in self.lengths or ():
            require(length >= 1, f"task.lengths={length} must be at least 1.")

    def open(self, material: Material) -> Opened:
        """Open the inputs of the task.

        Raises:
            ConfigError: files cannot be used. `Opened.example` raises it if the task does not fit
                in the length.
        """
        raise NotImplementedError

    def row(self, opened: Opened, random: np.random.Generator, length: int) -> Example:
        """A row of a run, at one of `depths` and of one of `lengths`, with padding up to a length.

        Raises:
            ConfigError: as `Opened.example`, or one of `lengths` is larger than the length.
        """
        depth = None if self.depths is None else float(random.choice(self.depths))
        if self.lengths is None:
            return opened.example(random, length, depth)
        most = max(self.lengths)
        require(
            most <= length,
            f"task.lengths={most} is larger than data.sequence={length}: raise data.sequence.",
        )
        row = opened.example(random, int(random.choice(self.lengths)), depth)
        return row._replace(inputs=np.pad(row.inputs, (0, length - len(row.inputs))))

    def references(self, answer: str) -> tuple[str, ...]:
        """The strings that a completion should contain, in any order, if an answer has several.

        `miras eval` then reports recall: the mean share of them in greedy completions. () for tasks
        whose answers are right or wrong as a whole.

        Args:
            answer: the text of the targets of a row.
        """
        del answer
        return ()


register = Task.registry.register


def with_examples(task: TaskConfig | None) -> Task:
    """A task that makes examples; `ConfigError` for one that has rows and metrics of its own."""
    if not isinstance(task, Task):
        kind = None if task is None else to_dict(task)["kind"]
        raise ConfigError(
            f"task {kind!r} has no examples with a length and a depth: it is measured by `miras "
            "eval RUN` without --task."
        )
    return task


def seeded(seed: int, role: str, *place: int) -> np.random.Generator:
    """The random generator of a row, independent for each seed, role and place."""
    return np.random.default_rng((seed, ROLES.index(role), *place))


def check_depth(depth: float, name: str) -> None:
    """Raise `ConfigError` for a depth outside [0, 1]."""
    require(
        0 <= depth <= 1,
        f"{name}={depth:g} must lie in [0, 1]: 0 is the start of the context, 1 its end.",
    )


def check_length(length: int, least: int, what: str) -> None:
    """Raise `ConfigError` for a length below the least one."""
    require(length >= least, f"length={length} is too short for {what}: use at least {least}.")
