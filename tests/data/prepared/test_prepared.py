"""Prepared sets: every token once, from any number of processes; read like text."""

import itertools
import json
import os
import pickle
import re
import shutil
import signal

import numpy as np
import pytest

from miras.cli.main import main
from miras.config import override
from miras.data import DataConfig, make_loader
from miras.data.prepared.prepare import prepare
from miras.data.prepared.verify import verify
from miras.data.prepared.write_shard import write_shard
from miras.data.text.corpus import open_documents
from miras.errors import ConfigError
from tests.data.tokenizers.test_tokenizers import byte_level

SIZE = 4_000  # bytes of a shard


@pytest.fixture
def text(folder, cache):
    return DataConfig(source=str(folder), cache=cache, sequence=64, batch=4, validation=0.2)


@pytest.fixture
def subwords(tmp_path):
    return byte_level(tmp_path / "tokenizer.json")


@pytest.fixture
def made(text, tmp_path):
    return prepare(text, tmp_path / "set", align=8, shard_bytes=SIZE)


@pytest.fixture
def config(made, text):
    return override(text, f"source={made.folder}")


def bytes_of(batches):
    return sum(np.bincount(b["targets"][b["mask"]], minlength=256) for b in batches)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".array_record"}


@pytest.mark.parametrize("sequence", [64, 32, 8])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_each_token_is_a_target_once_in_an_epoch(text, config, split, sequence):
    data = override(config, f"sequence={sequence}")
    documents = list(open_documents(text, split))
    batches = list(make_loader(data, split, align=8, epochs=1))
    expected = np.bincount(np.frombuffer(b"".join(documents), np.uint8), minlength=256)
    np.testing.assert_array_equal(bytes_of(batches), expected)
    assert sum(b["target_bytes"].sum() for b in batches) == sum(map(len, documents))
    assert sum((b["inputs"] == 256).sum() for b in batches) == len(documents)
    for batch in batches:
        segments = batch["segment_ids"]
        assert not (np.argwhere(np.diff(segments, axis=1))[:, 1] + 1 & 7).any()
        assert set(segments[:, 0]) <= {0, 1}


def test_rows_are_those_that_the_packer_makes_of_a_shard(text, tmp_path):
    """With one shard, the rows in order are those of text that is read in order."""
    prepare(text, tmp_path / "whole", align=8)
    config = override(text, f"source={tmp_path / 'whole'}")
    one = make_loader(text, "train", align=8, epochs=1, shuffle=False)
    other = make_loader(config, "train", align=8, epochs=1, shuffle=False)
    for a, b in itertools.zip_longest(one, other):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_training_reads_rows_in_another_order_each_epoch_and_resumes(config):
    loader = make_loader(config, "train", align=8)
    steps = len(list(make_loader(config, "train", align=8, epochs=1)))
    first = [next(loader) for _ in range(steps + 2)]
    assert not np.array_equal(first[0]["targets"], first[steps]["targets"])
    state = json.loads(json.dumps(loader.get_state()))
    expected = next(loader)
    resumed = make_loader(config, "train", align=8, rows=[3, 1])
    resumed.set_state(state)
    for name, array in next(resumed).items():
        np.testing.assert_array_equal(array, expected[name][[3, 1]])
    other = make_loader(override(config, "seed=1"), "train", align=8)
    with pytest.raises(ConfigError, match="belongs to other data, as seed was 0, is 1"):
        other.set_state(state)


@pytest.mark.multiprocess
def test_processes_and_machines_write_the_same_files(made, text, tmp_path):
    assert made.finished
    assert len(made.shards["train"]) >= 4
    expected = files(made.folder)
    whole = prepare(text, tmp_path / "b", align=8, shard_bytes=SIZE, processes=2)
    assert files(whole.folder) == expected
    parts = [
        prepare(text, tmp_path / "c", align=8, shard_bytes=SIZE, shard=(n, 3)) for n in (2, 0, 1)
    ]
    assert [part.finished for part in parts] == [False, False, True]
    assert files(parts[0].folder) == expected
    index = [(f / "index.json").read_text() for f in (made.folder, whole.folder, tmp_path / "c")]
    assert len(set(index)) == 1


def test_finished_shards_are_kept_and_damaged_ones_are_written_again(made, text):
    def again():
        return prepare(text, made.folder, align=8, shard_bytes=SIZE)

    expected = files(made.folder)
    path = made.folder / made.shards["train"][2].file
    total = sum(made.plan.shards.values())
    assert again().kept == total
    path.write_bytes(path.read_bytes()[:-100])
    (made.folder / f"{made.shards['train'][3].name}.json").unlink()
    assert again().kept == total - 2
    assert files(made.folder) == expected


def test_a_signal_ends_the_command_after_a_shard_and_a_repetition_continues(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    words = ["prepare", str(folder), "--sequence", "64", "--align", "8", "--processes", "1"]
    words += ["--shard-bytes", str(SIZE), "--out", str(tmp_path / "set")]

    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return write_shard(*args)

    with monkeypatch.context() as patch:
        patch.setattr("miras.data.prepared.prepare.write_shard", interrupted)
        assert main(words) == 143
    assert "stopped by SIGTERM after 1 of " in capsys.readouterr().err
    assert not (tmp_path / "set" / "index.json").exists()
    (tmp_path / "set" / f".{'0' * 32}.new").touch()  # as one that was killed leaves
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of " in out
    assert "0 of " not in out
    verify(tmp_path / "set")
    assert not list((tmp_path / "set").glob(".*"))


def test_an_unfinished_set_is_not_read(text, tmp_path):
    part = prepare(text, tmp_path / "set", align=8, shard_bytes=SIZE, shard=(0, 2))
    config = override(text, f"source={part.folder}")
    with pytest.raises(ConfigError, match=r"unfinished \(\d of \d shards\): repeat"):
        make_loader(config, "train", align=8)


def test_verification_finds_a_damaged_byte(made):
    assert verify(made.folder).plan == made.plan
    path = made.folder / made.shards["train"][1].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"train-00001-of-.* is damaged .*sha256.*repeat"):
        verify(made.folder)


@pytest.mark.parametrize("damage", ["shorter", "missing", "noise"])
def test_reading_a_damaged_shard_names_it(made, config, damage):
    shutil.copytree(made.folder, made.folder.parent / "copy")
    path = made.folder / made.shards["train"][0].file
    content = path.read_bytes()
    path.unlink()
    if damage == "shorter":
        path.write_bytes(content[:1000])
    elif damage == "noise":
        path.write_bytes(bytes(len(content)))
    with pytest.raises(ConfigError, match=r"train-00000-of-.* is damaged .*repeat") as error:
        list(make_loader(config, "train", align=8, epochs=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("align", "changes", "match"),
    [
        (16, [], r"multiples of 8, and not of align=16 .* chunk of 1, 2, 4 or 8, or .*--align 16"),
        (8, ["sequence=128"], r"sequence=128 does not suit .* 64 tokens: use 64, 32, 16 or 8"),
        (8, ["sequence=48"], r"sequence=48 does not suit .*--sequence 48"),
        (8, ["tokenizer=TOKENIZER"], r"another tokenizer than .*use data.tokenizer=byte, or"),
        (
            8,
            ["task=niah", "task.form=word", "sequence=512"],
            r"is a prepared set, which holds tokens and no documents",
        ),
    ],
)
def test_what_does_not_suit_a_set(config, subwords, align, changes, match):
    data = override(config, *(change.replace("TOKENIZER", str(subwords)) for change in changes))
    with pytest.raises(ConfigError, match=match) as error:
        make_loader(data, "train", align=align)
    assert "\n" not in str(error.value)


def test_documents_of_every_source_are_sent_to_processes(tiny_tfds, text, tmp_path):
    texts = [f"text {n} " * 20 for n in range(20)]
    tiny_tfds({"train": texts, "validation": texts[:4]})
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"body": body}) + "\n" for body in texts)
    )
    (tmp_path / "long.txt").write_text("".join(text + "\n" for text in texts))
    for source in ("tfds:tiny_text", str(tmp_path / "rows.jsonl"), str(tmp_path / "long.txt")):
        data = override(
            text, f"source={source}", "field=body" if "rows" in source else "field=text"
        )
        documents = open_documents(data, "train")
        assert list(pickle.loads(pickle.dumps(documents))) == list(documents)
        made = prepare(data, tmp_path / f"set_of_{source[-4:]}", align=8)
        size = sum(shard.bytes for shard in made.shards["train"])
        assert size == sum(map(len, documents))


def test_a_set_keeps_its_tokenizer(text, subwords, tmp_path):
    data = override(text, f"tokenizer={subwords}")
    made = prepare(data, tmp_path / "set", align=8)
    one = make_loader(data, "validation", align=8)
    source = override(data, f"source={made.folder}", f"tokenizer={made.folder}/tokenizer.json")
    for a, b in itertools.zip_longest(one, make_loader(source, "validation", align=8)):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    with pytest.raises(ConfigError, match=r"use data\.tokenizer=.*set/tokenizer\.json"):
        make_loader(override(source, "tokenizer=byte"), "train", align=8)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--align", "24"], r"--align 24 does not divide --sequence 64: use --sequence 72"),
        (["--shard", "3/3"], r"--shard 3/3 names no part: give I/N with I from 0"),
        (["--shard", "x"], r"--shard 'x' is not of the form I/N"),
        (["--processes", "0"], r"--processes 0 must be at least 1"),
    ],
)
def test_the_command_names_what_is_wrong(folder, tmp_path, monkeypatch, capsys, words, match):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "set")
    assert main(["prepare", str(folder), "--sequence", "64", "--out", out, *words]) == 2
    assert re.search(match, capsys.readouterr().err)


def test_the_command_prepares_and_verifies(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MIRAS_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "set")
    words = ["prepare", str(folder), "--sequence", "64", "--align", "8", "--processes", "1"]
    words += ["--out", out]
    assert main([*words, "--verify"]) == 0
    assert "all 2 shards are as they were written" in capsys.readouterr().out
    assert main(["prepare", "--out", out, "--verify"]) == 0
    assert main([*words, "--validation", "0.5"]) == 2
    assert "set of something else, as validation was 0.05, is 0.5" in capsys.readouterr().err
    assert main(["prepare", "--out", out]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    assert main([*words[:-1], str(tmp_path / "other")]) == 2
    assert "holds other files ('notes')" in capsys.readouterr().err
