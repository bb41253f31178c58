"""Bad input: one sentence that names the value, what is legal and the fix."""

import gzip
import pathlib

import numpy as np
import pytest

from miras.data import DataConfig, make_loader
from miras.errors import ConfigError


def fails(match, source, cache, split="train", align=8, **kwargs):
    settings = {k: kwargs.pop(k) for k in list(kwargs) if k in DataConfig.__dataclass_fields__}
    config = DataConfig(source=str(source), cache=str(cache), **settings)
    with pytest.raises(ConfigError, match=match) as error:
        make_loader(config, split, align=align, **kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("validation", 0),
        ("validation", 1.0),
        ("validation", float("nan")),
        ("sequence", 0),
        ("sequence", 2.5),
        ("batch", -1),
        ("batch", True),
        ("seed", -1),
        ("seed", 2**32),
        ("source", ""),
        ("tokenizer", None),
        ("cache", 3),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_config_is_built(field, value):
    with pytest.raises(ConfigError, match=rf"(data|DataConfig)\.{field}="):
        DataConfig(**{field: value})


def test_a_missing_path(tmp_path, cache):
    fails(r"'.*/none' does not exist: give a file, a folder, a glob", tmp_path / "none", cache)
    fails(r"\*\.txt' is an empty corpus", tmp_path / "*.txt", cache)


def test_an_empty_corpus(tmp_path, cache):
    (tmp_path / "texts").mkdir()
    fails(r"texts' is an empty corpus: it matches no text file", tmp_path / "texts", cache)
    (tmp_path / "texts" / "a.txt").touch()
    fails(r"texts' is an empty corpus: all of its 1 files are empty", tmp_path / "texts", cache)
    fails(r"a\.txt' is an empty corpus", tmp_path / "texts" / "a.txt", cache)


def test_a_corpus_of_one_short_document(tmp_path, cache):
    (tmp_path / "a.txt").write_bytes(b"short")
    fails(r"single short document.*give more text", tmp_path / "a.txt", cache)


def test_too_little_text_says_how_much_there_is_and_what_would_fit(tmp_path, cache):
    (tmp_path / "texts").mkdir()
    for n in range(2):
        (tmp_path / "texts" / f"{n}").write_bytes(bytes([97 + n]) * 100)
    for split in ("train", "validation"):
        fails(
            rf"{split} split .* holds 100 tokens, too few .* data\.sequence=256: "
            r"use data\.sequence=96 or less",
            tmp_path / "texts", cache, split, sequence=256,
        )  # fmt: skip
    config = DataConfig(source=str(tmp_path / "texts"), cache=cache, sequence=96)
    assert next(make_loader(config, "train", align=8))["mask"].any()


def test_shapes_that_do_not_divide(folder, cache):
    fails(r"sequence=100 .* align=16 .* use 96", folder, cache, align=16, sequence=100)
    fails(r"row 8 .* data\.batch=8: rows are numbers from 0 to 7", folder, cache, rows=[0, 8])
    fails(r"rows=\[\] must be at least one row", folder, cache, rows=[])
    fails(r"rows=\[1, 1\] must .* name each row once", folder, cache, rows=[1, 1])
    fails(r"epochs=0", folder, cache, epochs=0)
    fails(r"split 'test' is unknown", folder, cache, split="test")


def test_a_corrupt_archive_leaves_no_data_set(tmp_path, cache):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_bytes(b"good text")
    bad = tmp_path / "texts" / "b.txt.gz"
    bad.write_bytes(b"no gzip")
    fails(r"^'.*b\.txt\.gz' cannot be read", tmp_path / "texts", cache)
    fails(r"^'.*b\.txt\.gz' cannot be read", bad, cache)
    noise = np.random.default_rng(0).integers(1, 256, 100_000, np.uint8).tobytes()
    bad.write_bytes(gzip.compress(noise)[:-5_000])  # whole where the folder is searched
    fails(r"^'.*b\.txt\.gz' cannot be read", tmp_path / "texts", cache)
    assert not list((tmp_path / "cache").rglob("dataset_info.json"))


def test_a_cache_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").touch()
    fails(r"data cache '.*file' cannot be written.*MIRAS_CACHE", folder, tmp_path / "file")


def test_a_tfds_set_that_is_not_there(cache):
    fails(r"'tiny_shakespeare' is not prepared .* run python -c", "tfds:tiny_shakespeare", cache)
    fails(r"'no_such/config' is not prepared", "tfds:no_such/config", cache)
    fails(r"names no TFDS set", "tfds:", cache)


def test_a_tfds_set_in_another_format_says_how_to_prepare_it(cache, tiny_tfds):
    tiny_tfds({"train": ["a", "b"]})
    # Writing another format needs packages that reading does not; the record of it is enough.
    (info,) = pathlib.Path(cache).rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    fails(
        r"'tiny_text' in '.*' is not in array_record format: .*file_format='array_record'",
        "tfds:tiny_text", cache,
    )  # fmt: skip


def test_a_tfds_set_without_a_clear_text_feature(cache, tiny_tfds):
    tiny_tfds({"train": ["a", "b"]}, features=("answer", "question"))
    fails(
        r"no single text feature among its features answer, number, question: "
        r"choose one as in 'tfds:tiny_text#answer'",
        "tfds:tiny_text", cache,
    )  # fmt: skip
    fails(r"no text feature 'title' among its features", "tfds:tiny_text#title", cache)


def test_a_tfds_set_without_a_train_split(cache, tiny_tfds):
    tiny_tfds({"test": ["a"]})
    fails(r"no 'train' split .*\(it has test\)", "tfds:tiny_text", cache)
