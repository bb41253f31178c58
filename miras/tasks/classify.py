"""The task `classify`: one class for each labelled sequence of a table or a folder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from miras.config import require
from miras.config.choices import shown
from miras.data.config import DataConfig, TaskConfig
from miras.data.task import register
from miras.data.tokenizers import words
from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.data.labelled.example import Labelled
    from miras.data.rows import RowStream
    from miras.models.objective import Objective
    from miras.parallel.batches import Layout

_LONGEST = 10  # nucleotides of a word: a million ids


@register("classify")
@dataclasses.dataclass(frozen=True)
class Classify(TaskConfig):
    """Classes of sequences, which `data.source` has by label; see `miras.data.labelled.source`.

    A row is the document start and the ids of `data.tokenizer`, at most `data.sequence` in all. The
    model is a `miras.models.Classifier`. The options of strands, words and intervals are for DNA,
    with `data.tokenizer=nucleotide`.

    Attributes:
        classes: names of the classes; None for those of the source, which a command looks up.
        pooling: of the features over the tokens, "mean" or "last".
        sequence_column: of tables.
        label_column: of tables.
        truncate: whether longer sequences are cut; otherwise they are an error.
        folds: held-out rows are one of so many folds of a table, each with the classes in their
            shares, by a hash of the sequences and `data.content_seed` (`data.seed` where that is
            not given); 0 for the source's own test set, or else a share `data.validation`.
        fold: the held-out one, in [0, folds).
        augment_strand: whether each training row is read from a random strand in each epoch.
        pool_strands: whether an evaluation takes the mean of the logits of both strands.
        hide: share of the tokens of training rows that become N, anew in each epoch, in [0, 1).
        words: tokens are the overlapping words of so many nucleotides, >= 1; 4^words + 2 ids.
        genome: the FASTA file of intervals, in tables without sequences.

    Raises:
        ConfigError: a value is out of range.
    """

    reports = "test"

    classes: tuple[str, ...] | None = None
    pooling: Literal["mean", "last"] = "mean"
    sequence_column: str = "sequence"
    label_column: str = "label"
    truncate: bool = False
    folds: int = 0
    fold: int = 0
    augment_strand: bool = False
    pool_strands: bool = False
    hide: float = 0.0
    words: int = 1
    genome: str | None = dataclasses.field(default=None, metadata={"path": True})

    def validate(self) -> None:
        """Check the ranges above."""
        require(
            self.classes is None or len(set(self.classes)) == len(self.classes) > 1,
            f"task.classes={shown(self.classes)} must be two or more different names, or none.",
        )
        require(
            self.folds == 0 or self.folds >= 2,
            f"task.folds={self.folds} must be 0 for none, or at least 2.",
        )
        require(
            0 <= self.fold < max(self.folds, 1),
            f"task.fold={self.fold} must lie in [0, {max(self.folds, 1)}), for "
            f"task.folds={self.folds}.",
        )
        require(0 <= self.hide < 1, f"task.hide={self.hide} must lie in [0, 1).")
        require(
            1 <= self.words <= _LONGEST,
            f"task.words={self.words} must lie in [1, {_LONGEST}].",
        )

    def vocabulary(self) -> int | None:
        """That of the words, if they are longer than a nucleotide."""
        return None if self.words == 1 else words.vocabulary(self.words)

    def objective(self, data: DataConfig) -> Objective:
        """A `miras.models.Classifier` with cross entropy and accuracy."""
        from miras.tasks.classification import Classification

        self._check_tokenizer(data)
        return Classification(len(self._classes()), self.pooling, self.pool_strands)

    def settled(self, data: DataConfig) -> Classify:
        """With the classes of the source, in alphabetical order, unless they are given."""
        if self.classes is not None:
            return self
        parts = self._read(data)
        names = {example.label for examples in parts.values() for example in examples}
        require(
            len(names) > 1,
            f"data source {data.source!r} has one class, {min(names)!r}: give at least two.",
        )
        return dataclasses.replace(self, classes=tuple(sorted(names)))

    def layout(self, data: DataConfig) -> Layout:
        """The inputs, the label and whether the row counts."""
        from miras.parallel.batches import RowField

        tokens = RowField((data.sequence,), np.int32, over_time=True)
        layout = {"inputs": tokens, "segment_ids": tokens}
        layout |= {"label": RowField((), np.int32), "mask": RowField((), np.bool_)}
        return layout | ({"other_strand": tokens} if self.pool_strands else {})

    def rows(
        self, data: DataConfig, split: str, *, epochs: int | None, shuffle: bool
    ) -> tuple[RowStream, dict[str, Any]]:
        """The rows of a split; those of "train" are changed anew in each epoch."""
        from miras.data.labelled.example import fingerprint
        from miras.data.labelled.rows import LabelledRows, RowForm
        from miras.data.labelled.splits import choose

        self._check_tokenizer(data)
        examples = choose(
            self._read(data),
            split,
            validation=data.validation,
            seed=data.seed_of_content,
            folds=self.folds,
            fold=self.fold,
        )
        identity = {
            "examples": fingerprint(examples),
            "task": [self.augment_strand, self.hide, self.words, list(self._classes())],
            "tokenizer": data.tokenizer,
            "sequence": data.sequence,
            "seed": data.order_seed(split) if shuffle or split == "train" else None,
            "shuffle": shuffle,
            "epochs": epochs,
        }
        labels = self._labels(examples)
        form = RowForm(data.tokenizer, data.sequence, self.words, self.truncate)
        if split == "train":
            form = form._replace(random_strand=self.augment_strand, hide=self.hide)
        return LabelledRows(
            form, examples, labels, data.order_seed(split), epochs, shuffle
        ), identity

    def _classes(self) -> tuple[str, ...]:
        if self.classes is None:
            raise ConfigError(
                "task.classes is not given: name the classes, or take them from the source with "
                "task.settled(data)."
            )
        return self.classes

    def _labels(self, examples: list[Labelled]) -> list[int]:
        """The number of the class of each example."""
        number = {name: n for n, name in enumerate(self._classes())}
        for example in examples:
            if example.label not in number:
                raise ConfigError(
                    f"a sequence has the label {example.label!r}, which is none of "
                    f"task.classes={list(number)}: add it, or remove the sequence."
                )
        return [number[example.label] for example in examples]

    def _read(self, data: DataConfig) -> dict[str, list[Labelled]]:
        from miras.data.labelled.genome import Genome
        from miras.data.labelled.source import Columns, read_labelled

        require(
            data.source != "stdlib" and not data.source.startswith("tfds:"),
            f"data.source={data.source!r} has no labels: give a CSV file or a folder of classes "
            "with data.source=PATH.",
        )
        genome = None if self.genome is None else Genome(self.genome, data.cache_dir)
        return read_labelled(data.source, Columns(self.sequence_column, self.label_column, genome))

    def _check_tokenizer(self, data: DataConfig) -> None:
        """The options of DNA need its tokenizer."""
        if data.tokenizer == "nucleotide":
            return
        for name in ("augment_strand", "pool_strands", "hide"):
            require(
                not getattr(self, name),
                f"task.{name} is for nucleotides: use data.tokenizer=nucleotide, not "
                f"{data.tokenizer!r}.",
            )
        require(
            self.words == 1,
            f"task.words={self.words} is for nucleotides: use data.tokenizer=nucleotide, not "
            f"{data.tokenizer!r}.",
        )
