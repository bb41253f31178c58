"""Corpora and TFDS sets small enough to make anew in every test."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from miras.data.tfds_cache import OfflineInfo


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    """Forty text files of 1 to 3,000 bytes, all bytes but NUL among them; returns the folder."""
    root = tmp_path / "texts"
    rng = np.random.default_rng(0)
    for n, size in enumerate(np.geomspace(1, 3000, 40).astype(int)):
        path = root / f"sub{n % 3}" / f"file{n:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.integers(1, 256, size, np.uint8).tobytes())
    return root


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Whatever splits and features a test gives it."""

    VERSION = tfds.core.Version("1.2.3")

    def __init__(self, *, splits, features=("text",), file_format="array_record", **kwargs):
        self._splits, self._names = splits, features
        super().__init__(file_format=file_format, **kwargs)

    def _info(self):
        features = {name: tfds.features.Text() for name in self._names}
        return OfflineInfo(
            builder=self, features=tfds.features.FeaturesDict({**features, "number": np.int64})
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {name: self._generate_examples(texts) for name, texts in self._splits.items()}

    def _generate_examples(self, texts):
        for n, text in enumerate(texts):
            yield n, {**dict.fromkeys(self._names, text), "number": n}


@pytest.fixture
def tiny_tfds(cache):
    """Prepares ``tfds:tiny_text`` in the cache with the given splits."""

    def prepare(splits, **kwargs):
        builder = TinyText(splits=splits, data_dir=cache, **kwargs)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )

    return prepare
