"""FASTA files as a source of documents: records, pieces, compression, and what is not FASTA."""

import gzip

import numpy as np
import pytest

from miras.data import DataConfig, make_loader, make_tokenizer
from miras.data.text import fasta
from miras.data.text.corpus import open_documents
from miras.data.text.sources import one_file, survey
from miras.data.text.splitting import text_blocks
from miras.errors import ConfigError
from tests.data.sources_read import texts

TWO = ">one first\nACGT\nacgn\n\n; a comment\nAC GT\n>none\n>two\r\nTTTT\r\nGG\r\n"


def sequence(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def wrapped(text, width=60):
    return "\n".join(text[n : n + width] for n in range(0, len(text), width))


@pytest.mark.parametrize("name", ["a.fa", "a.fasta", "A.FNA", "a.fa.gz"])
def test_a_record_is_a_document_without_its_header_and_line_ends(tmp_path, name):
    raw = TWO.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    assert texts(tmp_path / name) == [b"ACGTacgnACGT", b"TTTTGG"]


def test_a_genome_alone_is_split_into_32_documents(tmp_path):
    whole = sequence(40_000)
    (tmp_path / "genome.fa").write_text(f">chr\n{wrapped(whole)}\n")
    found = texts(tmp_path / "genome.fa")
    assert b"".join(found).decode() == whole
    assert {len(text) for text in found} == {1250}


def test_beside_other_files_a_record_is_split_at_64_kib(tmp_path):
    whole = sequence(70_000)
    (tmp_path / "a.fa").write_text(f">chr\n{whole}\n")
    (tmp_path / "b.fa").write_text(">x\nACGT\n")
    found = texts(tmp_path)
    assert [len(text) for text in found] == [65_536, 70_000 - 65_536, 4]
    assert b"".join(found).decode() == whole + "ACGT"


@pytest.mark.parametrize("size", [1, 3, 4, 8, 100])
def test_pieces_spell_the_records_at_any_size(tmp_path, size):
    (tmp_path / "a.fa").write_text(TWO)
    file = survey(str(tmp_path / "a.fa")).files[0]
    records = {}
    for piece in fasta.pieces(file, size):
        record = records.setdefault(piece.record, [])
        assert piece.number == len(record)
        record.append(piece.sequence)
    assert {n: b"".join(parts) for n, parts in records.items()} == {
        0: b"ACGTacgnACGT",
        2: b"TTTTGG",
    }
    assert all(len(part) == size for parts in records.values() for part in parts[:-1])
    assert fasta.letters(file, 10**6) == 18


def test_a_stream_reads_records_with_line_ends_between(tmp_path):
    (tmp_path / "a.fa").write_text(TWO)
    blocks = text_blocks(one_file(tmp_path / "a.fa"))
    assert b"".join(blocks) == b"ACGTacgnACGT\nTTTTGG\n"


def test_a_file_with_the_suffix_and_no_header_is_text(tmp_path):
    (tmp_path / "persian.fa").write_text("salam\ndonya\n")
    assert texts(tmp_path / "persian.fa") == [b"salam\ndonya\n"]


def test_a_language_model_reads_nucleotides_of_a_genome(tmp_path, cache):
    whole = sequence(8_000)
    (tmp_path / "genome.fa").write_text(f">chr\n{wrapped(whole.lower())}\n")
    config = DataConfig(
        source=str(tmp_path / "genome.fa"), tokenizer="nucleotide", sequence=32, cache=cache
    )
    batches = list(make_loader(config, "validation", align=8))
    ids = np.concatenate([batch["targets"][batch["mask"]] for batch in batches])
    spelled = "".join(text.decode().upper() for text in open_documents(config, "validation"))
    assert make_tokenizer("nucleotide").decode(ids) == spelled
    assert sum(batch["target_bytes"].sum() for batch in batches) == len(ids)


def test_a_protein_is_no_nucleotide(tmp_path, cache):
    (tmp_path / "protein.faa").write_text(f">p\n{wrapped('MKVLA' * 200)}\n")
    config = DataConfig(
        source=str(tmp_path / "protein.faa"), tokenizer="nucleotide", sequence=32, cache=cache
    )
    with pytest.raises(ConfigError, match=r"'L' at position 3 of 'MKVLAM.*data.tokenizer=byte"):
        make_loader(config, "train", align=8)
