"""Labelled sequences: tables, folders of classes, intervals of a genome, splits and folds."""

import collections
import gzip

import numpy as np
import pytest

from miras.data.labelled.example import Labelled
from miras.data.labelled.genome import Genome, reverse_complement
from miras.data.labelled.source import Columns, read_labelled
from miras.data.labelled.splits import choose
from miras.errors import ConfigError

COLUMNS = Columns()


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_a_table_has_a_sequence_and_a_label_in_each_row(tmp_path, name):
    text = '\ufeffid,label,sequence\n1,x,ACGT\n2,"y,z", GGA \n'
    if "tsv" in name:
        text = "id\tlabel\tsequence\n1\tx\tACGT\n2\ty,z\tGGA\n"
    found = read_labelled(write(tmp_path / name, text), COLUMNS)
    assert found == {"train": [Labelled(b"ACGT", "x"), Labelled(b"GGA", "y,z")]}


def test_columns_may_have_other_names(tmp_path):
    source = write(tmp_path / "a.csv", "seq,kind\nAC,1\n")
    assert read_labelled(source, Columns("seq", "kind"))["train"] == [Labelled(b"AC", "1")]
    with pytest.raises(ConfigError, match=r"no column 'sequence', only 'seq', 'kind': .*_column="):
        read_labelled(source, COLUMNS)


def test_a_folder_of_classes(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for label in ("negative", "positive"):
            for n in range(count):
                write(tmp_path / split / label / f"{n}.txt", "ACGT\n" * (n + 1))
    write(tmp_path / "train" / ".hidden" / "x.txt", "no")
    found = read_labelled(str(tmp_path), COLUMNS)
    assert {split: len(rows) for split, rows in found.items()} == {"train": 6, "test": 4}
    assert found["test"][-1] == Labelled(b"ACGTACGT", "positive")


def test_a_folder_of_tables(tmp_path):
    write(tmp_path / "train.csv", "sequence,label\nAC,0\nGT,1\n")
    write(tmp_path / "dev.csv", "sequence,label\nAA,0\n")
    write(tmp_path / "test.csv", "sequence,label\nCC,1\n")
    found = read_labelled(str(tmp_path), COLUMNS)
    assert [found[split][0].text for split in ("train", "validation", "test")] == [
        b"AC",
        b"AA",
        b"CC",
    ]


def test_intervals_are_read_from_a_genome(tmp_path):
    genome = write(tmp_path / "genome.fa", ">chr1 x\nACGTAC\nGGTTNA\n>chr2\nTTTT\n")
    rows = "id,region,start,end,strand\n1,chr1,1,8,+\n2,chr1,1,8,-\n3,chr2,0,2,+\n"
    write(tmp_path / "set" / "train" / "positive.csv.gz", rows)
    write(tmp_path / "set" / "train" / "negative.csv", "chrom,start,end\nchr2,2,4\n")
    columns = Columns(genome=Genome(genome, tmp_path / "cache"))
    found = read_labelled(str(tmp_path / "set"), columns)["train"]
    assert found == [
        Labelled(b"TT", "negative"),
        Labelled(b"CGTACGG", "positive"),
        Labelled(b"CCGTACG", "positive"),
        Labelled(b"TT", "positive"),
    ]
    assert not list(tmp_path.glob("*.fai"))
    with pytest.raises(ConfigError, match=r"task\.genome=FILE"):
        read_labelled(str(tmp_path / "set"), COLUMNS)


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("chr9,0,2", "no region 'chr9'"),
        ("chr1,3,9", r"\[3, 9\) is not within region 'chr1', which has 4"),
        ("chr1,x,9", "start='x' is no whole number"),
        ("chr1,2,2", r"\[2, 2\) is not within"),
    ],
)
def test_wrong_intervals_are_named_with_their_line(tmp_path, row, match):
    genome = Genome(write(tmp_path / "genome.fa", ">chr1\nACGT\n"), tmp_path / "cache")
    source = write(tmp_path / "a.csv", f"region,start,end,label\nchr1,0,2,a\n{row},b\n")
    with pytest.raises(ConfigError, match=f"line 3 of .*{match}"):
        read_labelled(source, Columns(genome=genome))


def test_a_genome_that_is_no_fasta_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read .*bgzip"):
        Genome(str(tmp_path / "none.fa"), tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be read .*bgzip"):
        Genome(write(tmp_path / "genome.fa.gz", ">a\nACGT\n"), tmp_path)


def test_reverse_complement():
    assert reverse_complement(b"AACgtn") == b"NACGTT"


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({}, "has no train or train.csv: give a CSV"),
        ({"train/x/1.txt": "\n"}, "has no sequences"),
        ({"train.csv": "sequence,label\nAC,\n"}, r"line 2 of .* has no 'label'"),
        ({"train.csv": "sequence,label\nAC\n"}, r"line 2 of .* has no 'label'"),
        ({"train.csv.gz": ""}, "no column 'sequence', only none"),
    ],
)
def test_bad_sources_are_named(tmp_path, files, match):
    for name, text in files.items():
        write(tmp_path / "set" / name, text)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match=match):
        read_labelled(str(tmp_path / "set"), COLUMNS)


def test_a_damaged_or_missing_source_is_named(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    (tmp_path / "b.txt").write_text("text")
    for name, match in (("a.csv.gz", "cannot be read as a table"), ("b.txt", "is no table"),
                        ("none", "does not exist")):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            read_labelled(str(tmp_path / name), COLUMNS)


def some(count, seed=0):
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(list("ACGT"), 12)).encode() for _ in range(count)]
    return [Labelled(text, "ab"[n % 4 == 0]) for n, text in enumerate(texts)]


def chosen(parts, split, **options):
    given = {"validation": 0.25, "seed": 0, "folds": 0, "fold": 0} | options
    return choose(parts, split, **given)


def test_folds_are_a_partition_with_the_classes_in_their_shares():
    rows = [*some(80), *some(80)[:8]]  # some twice
    seen = collections.Counter()
    for fold in range(4):
        held_out = chosen({"train": rows}, "test", folds=4, fold=fold)
        trained = chosen({"train": rows}, "train", folds=4, fold=fold)
        assert held_out == chosen({"train": rows}, "validation", folds=4, fold=fold)
        assert not {x.text for x in held_out} & {x.text for x in trained}
        assert collections.Counter(held_out + trained) == collections.Counter(rows)
        labels = collections.Counter(x.label for x in set(held_out))
        assert labels == {"a": 15, "b": 5}
        seen += collections.Counter(held_out)
    assert seen == collections.Counter(rows)
    other = chosen({"train": rows}, "test", folds=4, seed=1)
    assert other != chosen({"train": rows}, "test", folds=4)


def test_what_a_source_lacks_is_held_out_from_train():
    rows, test, validation = some(40), some(5, 1), some(6, 2)
    held_out = chosen({"train": rows}, "validation")
    assert held_out == chosen({"train": rows}, "test")
    assert sorted(held_out + chosen({"train": rows}, "train")) == sorted(rows)
    assert collections.Counter(x.label for x in held_out) == {"a": 8, "b": 2}

    own_test = {"train": rows, "test": test}
    assert chosen(own_test, "test") == test
    assert chosen(own_test, "validation") == held_out

    every = {"train": rows, "validation": validation, "test": test}
    assert chosen(every, "train") == rows
    assert chosen(every, "validation") == validation
    with pytest.raises(ConfigError, match=r"task\.folds=4 divides .* a test"):
        chosen(every, "train", folds=4)


def test_an_empty_split_is_refused():
    with pytest.raises(ConfigError, match="the validation split has no sequences"):
        chosen({"train": [Labelled(b"A", "a"), Labelled(b"C", "b")]}, "validation")
