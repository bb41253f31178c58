"""The TFDS builder that keeps a task's rows as an array_record data set.

What is in a row is the business of `miras.tasks`; how rows become batches is `task_loader`.
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
from miras.data.config import DataConfig
from miras.data.task import Material, Opened, seeded
from miras.data.text.corpus import SPLITS, open_documents
from miras.data.tfds_cache import OfflineInfo, discard_damaged, prepared
from miras.data.tokenizers.make_tokenizer import make_tokenizer


class TaskRows(tfds.core.GeneratorBasedBuilder):
    """Rows of a task: int32 features `inputs` [sequence], `positions` [n] and `targets` [n].

    Splits `train` and `validation` are drawn from seeds of their own, and from training and
    held-out text where there is any. The data set's config is a hash of all that its rows depend
    on, so what is changed is a new data set.

    Args:
        data: with a task.
        data_dir: folder of prepared data sets.

    Raises:
        ConfigError: for files that cannot be used, or a task that does not fit in a row.
    """

    VERSION = tfds.core.Version("1.0.0")
    """To be raised with any change to what a task makes of a config."""

    url_infos = None  # as in `local_text`

    def __init__(self, *, data: DataConfig, data_dir: str | None = None) -> None:
        assert data.task is not None
        self._data, self._task = data, data.task
        self._opened = {split: open_task(data, split) for split in SPLITS}
        self.fingerprint = _hash(data, self._opened, str(self.VERSION))
        config = tfds.core.BuilderConfig(
            name=f"{to_dict(data.task)['kind']}-{self.fingerprint[:16]}",
            description=json.dumps(to_dict(data.task)),
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
            description="Rows of a task, and what must be predicted where.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for n in range(count(self._data, split)):
            random = seeded(self._data.seed, split, n)
            row = self._task.row(self._opened[split], random, self._data.sequence)
            yield n, row._asdict()


def open_task(data: DataConfig, role: str) -> Opened:
    """The task of a config, opened for one of `miras.data.task.ROLES`.

    Raises:
        ConfigError: for text, a tokenizer or files that cannot be used.
    """
    assert data.task is not None
    split = "train" if role == "train" else "validation"
    tokenizer = make_tokenizer(data.tokenizer)
    return data.task.open(Material(tokenizer, lambda: open_documents(data, split), role))


def count(data: DataConfig, split: str) -> int:
    """How many rows a split has."""
    assert data.task is not None
    examples = data.task.examples
    return examples if split == "train" else max(1, round(data.validation * examples))


def prepare(data: DataConfig) -> TaskRows:
    """Returns the prepared rows of a config's task.

    Raises:
        ConfigError: as `TaskRows`, or where the cache cannot be written.
    """
    cache = data.cache_dir
    made = prepared(lambda: TaskRows(data=data, data_dir=str(cache)), "a task", cache)
    assert isinstance(made, TaskRows)
    return made


def _hash(data: DataConfig, opened: dict[str, Opened], version: str) -> str:
    assert data.task is not None
    depends = [
        version,
        to_dict(data.task),
        data.sequence,
        data.seed,
        data.validation,
        [part.fingerprint for part in opened.values()],
    ]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()
