"""Rows of JSON lines and Parquet: a row is a document."""

import pyarrow
import pytest
from pyarrow import parquet

from miras.data import DataConfig, make_loader
from miras.data.text.corpus import open_documents
from miras.data.text.sources import survey
from miras.errors import ConfigError
from tests.data.sources_read import reasons, texts, write_rows

TEXT = "Ein Wort, 語, a word.\r\nAnd a line.\n"


ROWS = ["r.jsonl", "r.ndjson", "r.json", "r.jsonl.gz", "r.json.zst", "r.JSONL", "r.parquet"]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_document_in_its_order(tmp_path, cache, name):
    rows = [{"id": n, "text": f"row {n}: {TEXT}" * (n % 3), "body": "b"} for n in range(40)]
    write_rows(tmp_path / name, rows)
    expected = [row["text"].encode() for row in rows if row["text"]]
    assert texts(tmp_path / name) == expected
    (tmp_path / "z.txt").write_text("z")
    assert texts(tmp_path) == [*expected, b"z"]
    assert texts(tmp_path / name, field="body") == [b"b"] * 40
    config = DataConfig(source=str(tmp_path / name), cache=cache, sequence=32, batch=2)
    train, held_out = open_documents(config, "train"), open_documents(config, "validation")
    assert sorted([*train, *held_out]) == sorted(expected)
    assert next(make_loader(config, "train", align=8))["mask"].any()
    other = DataConfig(source=str(tmp_path / name), cache=cache, field="body")
    assert open_documents(other, "train").fingerprint != train.fingerprint


@pytest.mark.parametrize("name", ROWS)
def test_a_missing_field_names_those_that_are_there(tmp_path, name):
    write_rows(tmp_path / name, [{"title": "t", "body": "b"}] * 3)
    if ".json." in name or name.endswith(".json"):
        name = name.replace(".json", ".jsonl")
        write_rows(tmp_path / name, [{"title": "t", "body": "b"}] * 3)
    match = r"no field 'text', as .* has the fields 'title', 'body': .* data\.field=NAME"
    with pytest.raises(ConfigError, match=match):
        survey(str(tmp_path / name))
    (tmp_path / "a.txt").write_text("a")
    assert "without a field 'text'" in reasons(tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", r"line 3 is not valid JSON"),
        ('{"text": "a"', r"line 3 is not valid JSON"),
        ("[" * 100_000, r"line 3 is not valid JSON \(too deeply nested\)"),
        ('{"text": ' + "9" * 5000 + "}", r"line 3 is not valid JSON"),
        ('{"text": 7}', r"line 3 has a number in its field 'text', which must contain texts"),
        ('{"text": ["a"]}', r"line 3 has a list in its field 'text'"),
        ('{"text": {"a": 1}}', r"line 3 has an object in its field 'text'"),
        ('{"text": true}', r"line 3 has true or false in its field 'text'"),
        ('"text"', r"line 3 is a text, not an object"),
        ("null", r"line 3 is null, not an object"),
        ('{"body": "b"}', r"line 3 has the fields 'body'"),
        ('{"text": "caf\udce9"}', r"line 3 is not valid JSON .*utf-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, match):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        f'{{"text": "a"}}\n\n{line}\n{{"text": "b"}}\n'.encode(errors="surrogateescape")
    )
    with pytest.raises(ConfigError, match=rf"a\.jsonl'.*{match}") as error:
        texts(path)
    assert "\n" not in str(error.value)


def test_rows_without_text_are_left_out_and_said(tmp_path, caplog):
    write_rows(tmp_path / "a.jsonl", [{"text": "a"}, {"text": None}, {"text": ""}, {"text": "b"}])
    write_rows(tmp_path / "b.parquet", [{"text": "c"}, {"text": None}])
    assert texts(tmp_path) == [b"a", b"b", b"c"]
    assert [record.getMessage() for record in caplog.records] == [
        "a.jsonl: 2 rows have no text and are left out",
        "b.parquet: 1 rows have no text and are left out",
    ]


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (pyarrow.array([1, 2]), r"values of type int64 in its field 'text'"),
        (pyarrow.array([["a"], ["b"]]), r"values of type list<"),
        (pyarrow.array(["a", "b"]).dictionary_encode(), None),
        (pyarrow.array([b"a", b"b"]), None),
        (pyarrow.array(["a", "b"], pyarrow.large_string()), None),
    ],
)
def test_a_column_of_texts_in_any_layout(tmp_path, column, match):
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    if match is None:
        assert texts(tmp_path / "a.parquet") == [b"a", b"b"]
    else:
        with pytest.raises(ConfigError, match=match):
            texts(tmp_path / "a.parquet")
