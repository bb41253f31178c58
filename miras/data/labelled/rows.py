"""The rows of labelled sequences as a stream of rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from miras.data.labelled.example import Labelled
from miras.data.rows import Batch
from miras.data.tokenizers import words
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.data.tokenizers.nucleotide import complement
from miras.errors import ConfigError

_ORDER, _ROW = 0, 1  # what a random generator is for
_N = 4


class RowForm(NamedTuple):
    """How a sequence becomes a row.

    Attributes:
        tokenizer: as `data.tokenizer`.
        sequence: tokens per row, the document start included.
        words: nucleotides of a token.
        truncate: whether longer sequences are cut.
        random_strand: whether a row is read from a random strand.
        hide: share of the tokens that become N.
    """

    tokenizer: str
    sequence: int
    words: int = 1
    truncate: bool = False
    random_strand: bool = False
    hide: float = 0.0


class LabelledRows:
    """The stream of the rows of a split (`rows.RowStream`); one row per sequence and epoch.

    Args:
        form: of the rows.
        examples: the labelled sequences.
        labels: number of the class of each.
        seed: of the order and of random strands and hidden tokens, which are new in each epoch.
        epochs: passes over the sequences; None is unlimited.
        shuffle: whether each pass has a new order.

    Raises:
        ConfigError: a sequence is too long or too short, or no text of the tokenizer.
    """

    def __init__(
        self,
        form: RowForm,
        examples: list[Labelled],
        labels: list[int],
        seed: int,
        epochs: int | None,
        shuffle: bool,
    ) -> None:
        self._form, self._seed, self._row = form, seed, 0
        self._epochs, self._shuffle = epochs, shuffle
        tokenizer = make_tokenizer(form.tokenizer)
        self._start = tokenizer.bos_id if form.words == 1 else words.start(form.words)
        self._ids = [tokenizer.encode(text) for text, _ in examples]
        self._labels = labels
        self._cut(form.sequence)
        self._order: tuple[int, np.ndarray] | None = None  # of an epoch

    def _cut(self, sequence: int) -> None:
        """Check the lengths; cut what is too long, if the task does so."""
        most = sequence - 1 + self._form.words - 1
        longest, shortest = max(map(len, self._ids)), min(map(len, self._ids))
        if shortest < self._form.words:
            raise ConfigError(
                f"a sequence has {shortest} tokens, and a row needs at least {self._form.words}: "
                "remove it."
            )
        if longest > most and not self._form.truncate:
            raise ConfigError(
                f"a sequence has {longest} tokens, and data.sequence={sequence} leaves room for "
                f"{most} beside the document start: use data.sequence="
                f"{longest + sequence - most} or more (a multiple of the memory's chunk), or cut "
                "sequences with task.truncate=true."
            )
        self._ids = [ids[:most] for ids in self._ids]

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in `RowStream`."""
        epoch, n = divmod(self._row, len(self._ids))
        if self._epochs is not None and epoch >= self._epochs:
            return False
        if place is not None:
            index = self._index(epoch, n)
            ids = self._changed(self._ids[index])
            self._write(batch["inputs"][place], ids)
            batch["segment_ids"][place, : len(ids) - self._form.words + 2] = 1
            batch["label"][place], batch["mask"][place] = self._labels[index], True
            if "other_strand" in batch:
                self._write(batch["other_strand"][place], complement(ids[::-1]))
        self._row += 1
        return True

    def _index(self, epoch: int, n: int) -> int:
        if not self._shuffle:
            return n
        if self._order is None or self._order[0] != epoch:
            random = np.random.default_rng((self._seed, _ORDER, epoch))
            self._order = epoch, random.permutation(len(self._ids))
        return int(self._order[1][n])

    def _changed(self, ids: np.ndarray) -> np.ndarray:
        """The sequence of this row, from a random strand and with hidden tokens."""
        form = self._form
        if not (form.random_strand or form.hide):
            return ids
        random = np.random.default_rng((self._seed, _ROW, self._row))
        if form.random_strand and random.random() < 0.5:
            ids = complement(ids[::-1])
        return np.where(random.random(len(ids)) < form.hide, np.int32(_N), ids)

    def _write(self, row: np.ndarray, ids: np.ndarray) -> None:
        """The document start and the tokens."""
        tokens = ids if self._form.words == 1 else words.encode(ids, self._form.words)
        row[0], row[1 : len(tokens) + 1] = self._start, tokens

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {"row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from `get_state`."""
        self._row = int(state["row"])
