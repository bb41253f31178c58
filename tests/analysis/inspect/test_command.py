"""`miras inspect`: what it writes, how tokens are spelt, and what it refuses."""

import json
import re

import numpy as np
import pytest

from miras.analysis.inspect.page import Heading, page
from miras.analysis.inspect.token_text import visible_tokens
from miras.analysis.inspect.trace import Trace
from miras.cli.main import main
from miras.data import make_tokenizer
from miras.train import load_run
from tests.analysis.inspect.conftest import save_run

BYTES = make_tokenizer("byte")


def data_of(html: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(found)


@pytest.mark.slow
def test_a_page_lies_in_the_run_and_holds_its_numbers(run, capsys):
    assert main(["inspect", str(run), "--text", "so </script><b>é</b>"]) == 0
    assert f"written: {run / 'inspect.html'} (" in capsys.readouterr().out
    assert not list(run.glob("*.new"))
    data = data_of((run / "inspect.html").read_text("utf-8"))
    assert "".join(data["tokens"]) == "⊢so·</script><b>‥é</b>"
    assert data["name"] == "mine"
    assert ["step", "7"] in data["facts"]
    assert ["bias", "huber"] in data["facts"]
    assert data["layers"] == [1, 2]
    assert list(data["measures"]) == [
        "surprise", "error", "kept", "norm", "lr", "decay", "threshold", "loss",
    ]  # fmt: skip
    for values in data["values"].values():
        assert np.asarray(values).shape == (2, 2, 22)
    assert data["loss"][0] is None
    bits = np.mean(data["loss"][1:])
    assert 6 < bits < 12  # of an untrained model over 257 tokens
    assert ["loss", f"{bits:.3f} bits per token"] in data["facts"]


@pytest.mark.slow
def test_a_file_is_read_as_it_is_and_the_page_goes_where_it_is_told(run, tmp_path, capsys):
    text, out = tmp_path / "text", tmp_path / "new" / "page.html"
    text.write_bytes(b"a\n\t\xff\x00")
    assert main(["inspect", str(run), "--file", str(text), "--out", str(out)]) == 0
    assert data_of(out.read_text("utf-8"))["tokens"] == ["⊢", "a", "↵", "⇥", "\\xff", "\\x00"]
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b", ["a", "·", "b"]),
        ("漢", ["‥", "‥", "漢"]),
        ("\u202e", ["‥", "‥", "⟨U+202E⟩"]),
        (b"\xc3a", ["‥", "\\xc3a"]),
        (b"a\xe6\xbc", ["a", "‥", "\\xe6\\xbc"]),
        (b"\x7f\r", ["\\x7f", "\\x0d"]),
    ],
)
def test_bytes_are_spelt_so_that_they_can_be_seen(text, shown):
    assert visible_tokens(BYTES, [256, *BYTES.encode(text).tolist()]) == ["⊢", *shown]


def test_pieces_keep_their_blanks_and_control_ids_their_number():
    pieces = (b" the", b" sea", b"", b"")

    class Pieces(type(BYTES)):
        def __init__(self):
            self.byte_lengths, self.bos_id = np.array([len(piece) for piece in pieces]), 3

        def decode_bytes(self, ids):
            return b"".join(pieces[i] for i in ids).removeprefix(b" ")

    assert visible_tokens(Pieces(), [3, 0, 1, 2]) == ["⊢", "the", "·sea", "⟨2⟩"]


def test_nothing_in_a_page_is_taken_for_html(run):
    name, loss = "<!--<script>{{data}}&", np.array([np.nan, 0.123456])
    found = Trace(np.array([256, 60]), loss, (0,), {"surprise": np.full((2, 1, 1), np.nan)})
    html = page(Heading(name, 7, load_run(run).config.model), found, ["⊢", "</script><!--"])
    data = data_of(html)
    assert data["tokens"] == ["⊢", "</script><!--"]
    assert data["name"] == name
    assert data["loss"] == [None, 0.1235]
    assert data["values"] == {"surprise": [[[None, None]]]}
    assert "<title>&lt;!--&lt;script&gt;{{data}}&amp; · miras inspect</title>" in html
    assert html.count("<!--") == 0
    assert not re.search(r"(src|href)=[\"'](?!data:)", html)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["RUN"], ["--text", "--file", "--help"]),
        (["RUN", "--text", "a", "--file", "b"], ["--file", "--text"]),
        (["RUN", "--text", ""], ["empty", "--text"]),
        (["RUN", "--file", "/no/such/text"], ["'/no/such/text'", "No such file"]),
        (["RUN", "--file", "/"], ["'/'", "directory"]),
        (["RUN", "--text", "four", "--limit", "3"], ["4 tokens", "--limit 4"]),
        (["RUN", "--text", "a", "--limit", "0"], ["--limit 0", "at least 1"]),
        (["RUN", "--text", "a", "--out", "/"], ["/ is a folder"]),
        (["RUN", "--text", "a", "--out", "/dev/null/page.html"], ["/dev/null", "--out"]),
        (["RUN", "--text", "a", "--out", "x" * 300], ["x" * 50, "--out"]),
        (["runs/none", "--text", "a"], ["runs/none", "config.json"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(argv, words, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", *(str(run) if word == "RUN" else word for word in argv)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for word in words:
        assert word in told
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_memories_and_a_text_of_other_tokens_are_refused(tmp_path, capsys):
    attention = save_run(tmp_path / "attention", "transformer")
    assert main(["inspect", str(attention), "--text", "a"]) == 2
    assert "attention has no memory with weights" in capsys.readouterr().err
    narrow = save_run(tmp_path / "narrow", "yaad", "vocab=100")
    assert main(["inspect", str(narrow), "--text", "é"]) == 2
    assert "token 195, outside the model's vocabulary of 100" in capsys.readouterr().err
