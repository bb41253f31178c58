"""The rows of a task as a stream of rows.

`task_rows` prepares the rows.
"""

from __future__ import annotations

from typing import Any

import grain
import numpy as np

from miras.data.config import DataConfig
from miras.data.rows import Batch
from miras.data.task_rows import prepare
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.data.vocabulary import vocabulary


def task_rows(
    config: DataConfig, split: str, *, epochs: int | None, shuffle: bool
) -> tuple[TaskRowStream, dict[str, Any]]:
    """The rows of a config with a task, and the identity of the data; one example per row.

    The mask is true at the targets. `target_bytes` are the bytes of the text of the targets; a
    target of a task with its own vocabulary counts as one byte.
    """
    assert config.task is not None
    builder = prepare(config)
    source: Any = builder
    examples = grain.MapDataset.source(source.as_data_source(split))
    if shuffle:
        examples = examples.shuffle(seed=config.order_seed(split))
    if config.task.vocabulary() is None:
        sizes = make_tokenizer(config.tokenizer).byte_lengths
    else:
        sizes = np.ones(vocabulary(config), np.float32)
    identity = {
        "task": builder.fingerprint,
        "split": split,
        "batch": config.batch,
        "seed": config.order_seed(split) if shuffle else None,
        "epochs": epochs,
    }
    return TaskRowStream(examples.repeat(epochs), sizes, config.batch), identity


class TaskRowStream:
    """The stream of the rows of a task (`rows.RowStream`); skipped rows are not read.

    Args:
        examples: random access to the rows of all epochs.
        sizes: bytes of text of each token.
        batch: rows of a batch, in which earlier versions counted.
    """

    def __init__(self, examples: Any, sizes: np.ndarray, batch: int) -> None:
        self._examples, self._sizes, self._batch = examples, sizes, batch
        self._row = 0

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in `RowStream`."""
        if self._row >= len(self._examples):
            return False
        if place is not None:
            row = self._examples[self._row]
            positions, targets = row["positions"], row["targets"]
            batch["inputs"][place] = row["inputs"]
            batch["segment_ids"][place] = 1
            batch["targets"][place, positions] = targets
            batch["mask"][place, positions] = True
            batch["target_bytes"][place, positions] = self._sizes[targets]
        self._row += 1
        return True

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {"row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from `get_state`, or of miras 0.1, which counted batches."""
        self._row = int(state["row"] if "row" in state else state["taken"] * self._batch)
