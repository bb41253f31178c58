"""Batches of the rows of a task, with a position that can be saved and restored.

The rows are prepared by `task_rows`; the batches have the format of `loader.make_loader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from miras.data.config import DataConfig
from miras.data.packing import Batch, check_identity, empty_batch
from miras.data.task_rows import prepare
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.data.vocabulary import vocabulary


def make_task_loader(
    config: DataConfig,
    split: str,
    *,
    rows: Sequence[int],
    epochs: int | None,
    shuffle: bool,
) -> TaskIterator:
    """As `loader.make_loader`, for a config with a task: one example per row.

    The mask is true at the targets. `target_bytes` are the bytes of the text of the targets; a
    target of a task with its own vocabulary counts as one byte.
    """
    assert config.task is not None
    builder = prepare(config)
    source: Any = builder
    examples = grain.MapDataset.source(source.as_data_source(split))
    if shuffle:
        examples = examples.shuffle(seed=config.seed)
    examples = examples.repeat(epochs)
    if config.task.vocabulary() is None:
        sizes = make_tokenizer(config.tokenizer).byte_lengths
    else:
        sizes = np.ones(vocabulary(config), np.float32)
    identity = {
        "task": builder.fingerprint,
        "split": split,
        "batch": config.batch,
        "seed": config.seed if shuffle else None,
        "epochs": epochs,
    }
    return TaskIterator(examples, rows, config, sizes, identity)


class TaskIterator(grain.DatasetIterator[Batch]):
    """Iterator of batches of rows; its position is the number of batches read.

    Args:
        rows: random access to the rows of all epochs.
        own: the rows of a batch that this process returns; the others are not read.
        config: for the shape of a batch.
        sizes: bytes of text of each token.
        identity: plain values that identify the data; restoring a position of other data raises
            an error.
    """

    def __init__(
        self,
        rows: Any,
        own: Sequence[int],
        config: DataConfig,
        sizes: np.ndarray,
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self._rows, self._own, self._sizes, self._identity = rows, own, sizes, identity
        self._batch, self._sequence = config.batch, config.sequence
        self._taken = 0

    def __next__(self) -> Batch:
        """Returns the next batch; the last one of a finite pass is padded with empty rows."""
        self._assert_not_closed()
        first = self._taken * self._batch
        if first >= len(self._rows):
            raise StopIteration
        self._taken += 1
        batch = empty_batch(len(self._own), self._sequence)
        for n, place in enumerate(self._own):
            if first + place >= len(self._rows):
                continue
            row = self._rows[first + place]
            positions, targets = row["positions"], row["targets"]
            batch["inputs"][n] = row["inputs"]
            batch["segment_ids"][n] = 1
            batch["targets"][n, positions] = targets
            batch["mask"][n, positions] = True
            batch["target_bytes"][n, positions] = self._sizes[targets]
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {"identity": dict(self._identity), "taken": self._taken}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from `get_state`.

        Raises:
            ConfigError: the position was saved while reading other data.
        """
        check_identity(state["identity"], self._identity)
        self._taken = int(state["taken"])

    def __str__(self) -> str:
        return "TaskIterator"
