"""The config of the data: the source, the tokenizer and the shape of a batch.

`corpus` resolves paths and names when a loader is made.
"""

import dataclasses
import os
import pathlib

from miras.config import Config, FrozenMapping, added, require
from miras.config.choices import shown
from miras.data.task import Task
from miras.runtime.files import expand_home
from miras.runtime.paths import is_remote


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
        task: a task whose rows are read instead of text; ``source`` is then the background text
            and ``tokenizer`` the tokenizer of tasks that use them.
        sequence: tokens per row, > 0.
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
    task: Task | None = None
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
