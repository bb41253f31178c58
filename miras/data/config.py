"""What to read and how to cut it into rows, as plain data.

Nothing is opened here: paths and names are resolved by ``corpus`` when a loader is made.
"""

import dataclasses
import os
import pathlib

from miras.config import Config, added, require
from miras.config.choices import shown
from miras.data.task import Task
from miras.runtime.files import expanded


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """The corpus or the task, the tokenizer and the shape of a batch.

    Attributes:
        source: ``"stdlib"`` (the running Python's own sources), a file, folder or glob of text,
            JSON lines or Parquet (plain, .gz, .bz2, .xz or .zst), or ``"tfds:NAME"`` with an
            optional config, version and text feature: ``"tfds:wiki40b/en"``,
            ``"tfds:lm1b:1.1.0"``, ``"tfds:pg19#book_text"``.
        tokenizer: ``"byte"``, the path of a SentencePiece ``.model``, or the path of a Hugging Face
            ``tokenizer.json``.
        field: the field that holds the text, in rows of JSON lines and Parquet and in records of
            TFDS.
        task: rows of a task instead of rows of text; ``source`` is then the background of tasks
            that have one, and ``tokenizer`` serves those that are written in text.
        sequence: tokens in a row, > 0.
        batch: rows in a batch, over all processes together, > 0.
        validation: fraction of the documents held out, in (0, 1); unused where a TFDS set has a
            validation split of its own. Of a task, so many rows are held out for each to train on.
        seed: order of the training documents, in [0, 2**32); also of what a task's rows hold.
        cache: folder for prepared data sets; ``None`` is ``$MIRAS_CACHE`` or ``~/.cache/miras``.

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

    def validate(self) -> None:
        """Check the ranges above."""
        for name in ("source", "tokenizer", "field"):
            require(bool(getattr(self, name)), f"data.{name}='' must not be empty.")
        for name in ("sequence", "batch"):
            value = getattr(self, name)
            require(value >= 1, f"data.{name}={value} must be at least 1.")
        require(
            0 < self.validation < 1,
            f"data.validation={self.validation} must lie strictly between 0 and 1: it is the "
            "fraction of documents held out, for example 0.05.",
        )
        require(0 <= self.seed < 2**32, f"data.seed={shown(self.seed)} must lie in [0, 2**32).")

    @property
    def cache_dir(self) -> pathlib.Path:
        """The folder of prepared data sets, resolved as the class describes."""
        folder = self.cache or os.environ.get("MIRAS_CACHE") or "~/.cache/miras"
        return expanded(folder).absolute()
