"""The configs of the data and of its task: the source, the tokenizer and the shape of a batch.

`corpus` resolves paths and names when a loader is made.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from miras.config import Config, FrozenMapping, added, require
from miras.config.choices import shown
from miras.config.registry import Registry
from miras.runtime.files import expand_home
from miras.runtime.paths import is_remote

if TYPE_CHECKING:
    from miras.data.rows import RowStream
    from miras.models.objective import Objective
    from miras.parallel.batches import Layout

T = TypeVar("T", bound="TaskConfig")


class BaselineResult(NamedTuple):
    """The result of a baseline on the rows that a task reports.

    Attributes:
        name: of the baseline.
        scores: its metrics, by their names in an evaluation of the task.
    """

    name: str
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TaskConfig(Config):
    """What is trained in place of text: the contract of `data.task`.

    A task may bring rows, a model, a loss and metrics of its own; the one training loop, `miras
    eval`, `miras ablate`, checkpoints and meshes use it through these methods alone. To add one:

    1. derive a frozen dataclass and decorate it with `@miras.tasks.register("kind")`;
    2. for a model, loss and metrics other than a language model's on the targets of its rows,
       return a `miras.models.objective.Objective` from `objective`;
    3. for rows other than text with answers, whose arrays may be floats and of any shape,
       implement `layout`, `rows`, `row_tokens` and `vocabulary`.

    A task that makes rows of tokens with known answers derives from `miras.tasks.Task` instead,
    which does all of this but for making a row.

    Attributes:
        reports: the split that a finished run and `miras eval` report: "validation", or "test" if
            the task has one. Evaluations during training are of "validation".
    """

    registry: ClassVar[Registry[TaskConfig]] = Registry(
        "task", "miras.tasks", members="miras.tasks"
    )
    reports: ClassVar[str] = "validation"

    def vocabulary(self) -> int | None:
        """The size of the task's own vocabulary, 1 for floats; None for text of the tokenizer."""
        return None

    def objective(self, data: DataConfig) -> Objective | None:
        """The model, loss and metrics; None for a language model and the share of right answers."""
        del data
        return None

    def row_tokens(self) -> int | None:
        """Tokens per row, which `data.sequence` then is; None if the task has rows of any length.

        They are what the blocks of the model read.
        """
        return None

    def layout(self, data: DataConfig) -> Layout | None:
        """The arrays of a row; None for those of text, see `miras.data.rows.token_layout`."""
        del data
        return None

    def rows(
        self, data: DataConfig, split: str, *, epochs: int | None, shuffle: bool
    ) -> tuple[RowStream, dict[str, Any]] | None:
        """The rows of a split, and plain values that identify them.

        None stands for the examples of `miras.tasks.Task`, which are made once and kept on disk.

        Args:
            data: the config of which this is the task.
            split: "train", "validation", or "test" if that is what the task reports.
            epochs: passes over the rows; None is unlimited.
            shuffle: whether each pass has a new order, seeded by `data.seed`.

        Raises:
            ConfigError: the source cannot be used.
        """
        del data, split, epochs, shuffle
        return None

    def references(self, data: DataConfig) -> list[BaselineResult]:
        """Baselines on the split that the task reports, which `miras eval` prints beside a run.

        Raises:
            ConfigError: the source cannot be used.
        """
        del data
        return []

    def settled(self: T, data: DataConfig) -> T:
        """The task with the fields that a command line takes from the data, such as a count.

        Raises:
            ConfigError: the source cannot be used.
        """
        del data
        return self


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """The corpus or the task, the tokenizer and the shape of a batch.

    Attributes:
        source: ``"stdlib"`` (the running Python's own sources), a file, folder or glob of text,
            JSON lines, FASTA or Parquet (plain, .gz, .bz2, .xz or .zst), on disk or at
            ``gs://`` or ``s3://``, or ``"tfds:NAME"`` with an
            optional config, version and text feature: ``"tfds:wiki40b/en"``,
            ``"tfds:lm1b:1.1.0"``, ``"tfds:pg19#book_text"``; or the folder of a set that `miras
            prepare` wrote, whose tokenizer and held-out rows are then used.
        tokenizer: ``"byte"``, ``"nucleotide"`` (A, C, G, T and N), the path of a SentencePiece
            ``.model``, or the path of a Hugging Face ``tokenizer.json``, on disk or at ``gs://`` or
            ``s3://``.
        field: the field of the text in rows of JSON lines and Parquet, and in records of TFDS.
        task: a task whose rows are read instead of text; ``source`` is then its file or its
            background text, and ``tokenizer`` the tokenizer of tasks that use them.
        sequence: tokens per row, > 0; of a task with rows of one length, that length.
        batch: rows per batch, over all processes, > 0.
        validation: fraction of the documents held out, in (0, 1), unless a TFDS set has its own
            validation split. For a task, held-out rows as a fraction of its training rows.
        seed: of the order of the training documents and of the rows of a task, in [0, 2**32).
        mix: weights > 0 by source, of two or more sources in place of ``source``: a row comes from
            a source in weight / sum of weights of the rows, each of ``sequence`` tokens. Not for
            tasks.
        cache: folder of prepared data sets; ``None`` is ``$MIRAS_CACHE`` or ``~/.cache/miras``.
        content_seed: of what is read: the held-out rows that ``train.eval_batches`` samples, and
            the rows of a task, in [0, 2**32). ``None`` is ``seed``. With a number, ``seed`` changes
            the order of the training data and nothing else.
        held_out_align: segments of held-out rows start at multiples of this and of the memory's
            chunk, >= 1. With a common multiple of their chunks, models with different chunks are
            evaluated on the same rows.

    Raises:
        ConfigError: a value is outside the ranges above.
    """

    source: str = dataclasses.field(default="stdlib", metadata={"path": True})
    tokenizer: str = dataclasses.field(default="byte", metadata={"path": True})
    task: TaskConfig | None = None
    sequence: int = 256
    batch: int = 8
    validation: float = 0.05
    seed: int = 0
    cache: str | None = dataclasses.field(default=None, metadata={"path": True})
    field: str = added("text")
    mix: FrozenMapping[float] = dataclasses.field(
        default=FrozenMapping(), metadata={"added": True, "path": True}
    )
    content_seed: int | None = added(None)
    held_out_align: int = added(1)

    def validate(self) -> None:
        """Check the ranges above."""
        if (tokens := self.task and self.task.row_tokens()) is not None:
            object.__setattr__(self, "sequence", tokens)
        for name in ("source", "tokenizer", "field"):
            require(bool(getattr(self, name)), f"data.{name}='' must not be empty.")
        for name in ("sequence", "batch", "held_out_align"):
            value = getattr(self, name)
            require(value >= 1, f"data.{name}={value} must be at least 1.")
        require(
            0 < self.validation < 1,
            f"data.validation={self.validation} must lie strictly between 0 and 1: it is the "
            "fraction of held-out documents, for example 0.05.",
        )
        require(
            not is_remote(self.cache or ""),
            f"data.cache={self.cache!r} must be a local folder: it holds the copies of what "
            "lies on object stores.",
        )
        require(
            self.sequence % self.held_out_align == 0,
            f"data.held_out_align={self.held_out_align} must divide data.sequence={self.sequence}.",
        )
        self._check_mix()
        for name in ("seed", "content_seed"):
            value = getattr(self, name)
            require(
                value is None or 0 <= value < 2**32,
                f"data.{name}={shown(value)} must lie in [0, 2**32).",
            )

    def _check_mix(self) -> None:
        if not self.mix:
            return
        for source, weight in self.mix.items():
            require(bool(source), "data.mix names the source '': give the name of a text.")
            require(
                weight > 0,
                f"data.mix gives {source!r} the weight {weight:g}: give a weight above 0, or leave "
                "the source out.",
            )
        only = next(iter(self.mix))
        require(
            len(self.mix) > 1,
            f"data.mix={dict(self.mix)} has one source: use data.source={only}, or add another.",
        )
        require(
            self.source == "stdlib",
            f"data.source={self.source!r} and data.mix are both given: add the source to data.mix "
            "with a weight, or give data.mix={} for no mixture.",
        )
        require(
            self.task is None,
            "data.mix is of texts and prepared sets, and a task has rows of its own: leave out "
            "data.mix or data.task.",
        )

    def standing(self, name: str) -> Literal["own", "deeper", "hidden"]:
        """Rows of a task may have a length of their own."""
        own = name == "sequence" and self.task is not None and self.task.row_tokens() is not None
        return "hidden" if own else "own"

    def unused(self, name: str) -> str:
        """The task alone hides a field."""
        return (
            "the rows of the task have one length" if name == "sequence" else super().unused(name)
        )

    def instead(self, name: str) -> str:
        """What to set in place of the length of a row."""
        return "set the fields of the task" if name == "sequence" else super().instead(name)

    @property
    def seed_of_content(self) -> int:
        """The seed of the held-out sample and of a task's rows: `content_seed` or its default."""
        return self.seed if self.content_seed is None else self.content_seed

    def order_seed(self, split: str) -> int:
        """The seed of the order in which a split is read."""
        return self.seed if split == "train" else self.seed_of_content

    @property
    def cache_dir(self) -> pathlib.Path:
        """The folder of prepared data sets: `cache` or its default."""
        folder = self.cache or os.environ.get("MIRAS_CACHE") or "~/.cache/miras"
        return expand_home(folder).absolute()
