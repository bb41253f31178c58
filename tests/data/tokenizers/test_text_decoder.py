"""Text decoded as its ids come is the text decoded whole, for every tokenizer and every cut."""

import json

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.data import make_tokenizer
from miras.data.tokenizers.text_decoder import TextDecoder
from miras.errors import ConfigError
from tests.data.tokenizers.all_kinds import KINDS, make

PARTS = [" ", "  ", "\n", "\t", "def", "return x", ".", ",", "don't", "é", "e\u0301", "日本", "🎉"]
PARTS += ["👩\u200d👩\u200d👧", "\u00a0", "\ufffd", "<s>", "\u2581", "##", "</w>", "<0x41>", "\x00"]
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=12).map("".join)
RAW = TEXTS.map(str.encode) | st.binary(max_size=12)


@pytest.fixture(scope="module", params=KINDS)
def file(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp("tokenizers"))


@pytest.fixture(scope="module")
def tokenizer(file):
    return make_tokenizer(file)


def in_parts(tokenizer, ids, cuts, resume):
    """The text of ids fed up to each cut in turn, by a new decoder after each if `resume`."""
    decoder, text, done = TextDecoder(tokenizer), "", 0
    for cut in [*sorted(cuts), len(ids)]:
        text += decoder.feed(ids[done:cut])
        done = max(done, cut)
        if resume:
            decoder = TextDecoder(tokenizer, json.loads(json.dumps(decoder.state)))
    return text + decoder.finish()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(text=RAW, cuts=st.sets(st.integers(0, 12)), resume=st.booleans())
def test_a_text(tokenizer, text, cuts, resume):
    ids = [int(i) for i in tokenizer.encode(text)]
    assert in_parts(tokenizer, ids, cuts, resume) == tokenizer.decode(ids)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), cuts=st.sets(st.integers(0, 12)), resume=st.booleans())
def test_any_ids(tokenizer, data, cuts, resume):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 2), max_size=16))
    assert in_parts(tokenizer, ids, cuts, resume) == tokenizer.decode(ids)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(prompt=st.sampled_from(["", "x", "return", " ", "é"]), data=st.data())
def test_ids_after_a_prompt(tokenizer, prompt, data):
    before = [int(i) for i in tokenizer.encode(prompt)]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=8))
    decoder = TextDecoder(tokenizer)
    shown = decoder.feed_text(prompt.encode(), before)
    assert shown == prompt
    new = "".join(decoder.feed([i]) for i in ids) + decoder.finish()
    whole = tokenizer.decode_bytes([*before, *ids])
    start = len(tokenizer.decode_bytes(before))
    assert new.encode() == whole[start:].decode("utf-8", "replace").encode()


def test_characters_come_when_they_are_whole(tokenizer):
    if not tokenizer.local:
        assert TextDecoder(tokenizer).feed(tokenizer.encode("return")) == ""
        return
    text = "def f1(x):  # é, 日本"
    ids = [int(i) for i in tokenizer.encode(text)]
    decoder = TextDecoder(tokenizer)
    parts = [decoder.feed([i]) for i in ids]
    assert decoder.finish() == ""
    assert "".join(parts) == tokenizer.decode(ids)
    assert sum(map(bool, parts)) > 4


@settings(max_examples=40, deadline=None, derandomize=True)
@given(text=TEXTS)
def test_valid_text_is_what_the_library_decodes(file, tokenizer, text):
    if not file.endswith(".json"):
        return
    library = tokenizers.Tokenizer.from_file(file)
    ids = tokenizer.encode(text)
    expected = library.decode(ids.tolist(), skip_special_tokens=True)
    if "\ufffd" not in expected:
        assert tokenizer.decode(ids) == expected


def test_bytes_of_fallback_are_characters(tmp_path):
    file = make("byte_fallback.json", tmp_path)
    tokenizer, library = make_tokenizer(file), tokenizers.Tokenizer.from_file(file)
    ids = [library.token_to_id(f"<0x{byte:02X}>") for byte in "a🎉".encode() + b"\xffb\xc3"]
    assert tokenizer.decode_bytes(ids) == "a🎉".encode() + b"\xffb\xc3"
    decoder = TextDecoder(tokenizer)
    parts = [decoder.feed([i]) for i in ids]
    assert parts == ["a", "", "", "", "🎉", "\ufffd", "b", ""]
    assert decoder.finish() == "\ufffd"


@pytest.mark.parametrize(
    "change",
    [
        {"held": "ab"}, {"held": [-1]}, {"held": [True]}, {"shown": -1}, {"shown": 0.5},
        {"previous": 10**9}, {"begun": 1}, {"bytes": 3}, {"bytes": "00" * 9}, {"held": None},
    ],
)  # fmt: skip
def test_a_forged_state_is_refused(change):
    tokenizer = make_tokenizer("byte")
    state = TextDecoder(tokenizer).state
    with pytest.raises(ConfigError, match="text state"):
        TextDecoder(tokenizer, state | change)
