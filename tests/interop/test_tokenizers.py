"""The tokenizer files of an export: the ids of the run, with the document start before a text."""

import json

import pytest

from miras.data import make_tokenizer
from miras.interop.tokenizers import CONFIG, FILE, write_tokenizer
from tests.data.tokenizers.all_kinds import LINES, make

tokenizers = pytest.importorskip("tokenizers")


@pytest.mark.parametrize("kind", ["byte", "byte_level.json", "byte_fallback.json"])
def test_the_ids_are_those_of_the_run(kind, tmp_path):
    spec = "byte" if kind == "byte" else make(kind, tmp_path)
    own = make_tokenizer(spec)
    out = tmp_path / "out"
    out.mkdir()
    if kind != "byte":
        (out / FILE).write_bytes((tmp_path / kind).read_bytes())
    write_tokenizer(out, own)
    found = tokenizers.Tokenizer.from_file(str(out / FILE))
    for text in (*LINES[:3], "", "a  b é\n"):
        assert found.encode(text).ids == [own.bos_id, *own.encode(text).tolist()]
        assert found.encode(text, add_special_tokens=False).ids == own.encode(text).tolist()
    start = json.loads((out / CONFIG).read_text())["bos_token"]
    assert found.token_to_id(start) == own.bos_id
    before = (out / FILE).read_bytes()
    write_tokenizer(out, own)  # the file puts the start before a text by itself
    assert (out / FILE).read_bytes() == before
