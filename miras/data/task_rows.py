"""The TFDS builder that stores the rows of a task as an array_record data set.

`miras.tasks` makes the rows; `task_loader` makes batches of them.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from miras.config import to_dict
from miras.config.comparison import hashed_values
from miras.data.config import DataConfig
from miras.data.task import Material, Opened, seeded, with_examples
from miras.data.text.corpus import open_documents
from miras.data.text.documents import SPLITS
from miras.data.tfds_cache import OfflineInfo, discard_damaged, prepare_once
from miras.data.tokenizers.make_tokenizer import make_tokenizer


class TaskRows(tfds.core.GeneratorBasedBuilder):
    """Rows of a task: int32 features `inputs` [sequence], `positions` [n] and `targets` [n].

    The splits `train` and `validation` have different seeds, and background text of the training
    and the held-out documents. The name of the data set's config is a hash of everything that its
    rows depend on, so any change makes a new data set.

    Args:
        data: a config with a task.
        data_dir: folder of prepared data sets.

    Raises:
        ConfigError: files cannot be used, or an example does not fit in a row.
    """

    VERSION = tfds.core.Version("1.0.0")
    """Increase it with any change to the rows that a task makes for a config."""

    url_infos = None  # as in `local_text`

    def __init__(self, *, data: DataConfig, data_dir: str | None = None) -> None:
        self._data, self._task = data, with_examples(data.task)
        self._opened = {split: open_task(data, split) for split in SPLITS}
        self.fingerprint = _hash(data, self._opened, str(self.VERSION))
        config = tfds.core.BuilderConfig(
            name=f"{to_dict(self._task)['kind']}-{self.fingerprint[:16]}",
            description=json.dumps(to_dict(self._task)),
        )
        if data_dir is not None:
            folder = pathlib.Path(data_dir, self.name, config.name, str(self.VERSION))
            discard_damaged(folder)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        def tensor(size: int | None) -> Any:
            return tfds.features.Tensor(shape=(size,), dtype=np.int32)

        features = {
            "inputs": tensor(self._data.sequence),
            "positions": tensor(None),
            "targets": tensor(None),
        }
        return OfflineInfo(
            builder=self,
            description="Rows of a task, with the targets and their positions.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for n in range(row_count(self._data, split)):
            random = seeded(self._data.seed_of_content, split, n)
            row = self._task.row(self._opened[split], random, self._data.sequence)
            yield n, row._asdict()


def open_task(data: DataConfig, role: str) -> Opened:
    """Open the task of a config for one of `miras.data.task.ROLES`.

    Raises:
        ConfigError: the text, the tokenizer or files of the task cannot be used.
    """
    task = with_examples(data.task)
    split = "train" if role == "train" else "validation"
    tokenizer = make_tokenizer(data.tokenizer)
    return task.open(Material(tokenizer, lambda: open_documents(data, split), role))


def row_count(data: DataConfig, split: str) -> int:
    """The number of rows of a split."""
    examples = with_examples(data.task).examples
    return examples if split == "train" else max(1, round(data.validation * examples))


def prepare(data: DataConfig) -> TaskRows:
    """Returns the prepared rows of a config's task.

    Raises:
        ConfigError: as in `TaskRows`, or the cache cannot be written.
    """
    cache = data.cache_dir
    made = prepare_once(lambda: TaskRows(data=data, data_dir=str(cache)), "a task", cache)
    assert isinstance(made, TaskRows)
    return made


def _hash(data: DataConfig, opened: dict[str, Opened], version: str) -> str:
    assert data.task is not None
    depends = [
        version,
        hashed_values(data.task),
        data.sequence,
        data.seed_of_content,
        data.validation,
        [part.fingerprint for part in opened.values()],
    ]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()
