"""A streamed text is cut between characters, and its blocks have the tokens of the whole."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.analysis.stream.blocks import blocks
from miras.analysis.stream.read import Bucket
from miras.analysis.stream.token_stream import TokenStream, parse_position
from miras.data import make_tokenizer
from miras.errors import ConfigError
from tests.data.tokenizers.all_kinds import KINDS, make

WORDS = [
    "def",
    "f1",
    "return",
    "x",
    "é",
    "e\u0301t",
    "日本",
    "🎉",
    "👩\u200d👧",
    "(x):",
    ".",
    "don't",
]
SPACES = [" ", "  ", "\n", "\n\n", "\t", ""]
TEXTS = st.lists(
    st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), min_size=1, max_size=40
).map(lambda pairs: "".join(word + space for word, space in pairs))


def parts(text: bytes, cuts):
    cuts = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    return [text[a:b] for a, b in itertools.pairwise(cuts)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=TEXTS, cuts=st.sets(st.integers(0, 200)), size=st.integers(1, 40))
def test_blocks_are_whole_characters_and_do_not_depend_on_what_is_read_at_once(text, cuts, size):
    raw = text.encode()
    found = list(blocks(parts(raw, cuts), size))
    assert b"".join(found) == raw
    assert (
        found
        == list(blocks([raw], size))
        == list(blocks([raw[i : i + 1] for i in range(len(raw))], size))
    )
    for block in found:
        assert block
        block.decode()
    assert max(map(len, found)) <= 16 * size


@settings(max_examples=100, deadline=None, derandomize=True)
@given(raw=st.binary(max_size=200), size=st.integers(1, 8))
def test_any_bytes_are_cut_in_blocks(raw, size):
    found = list(blocks([raw], size))
    assert b"".join(found) == raw
    assert all(found)


@pytest.mark.parametrize(
    "character", ["é", "日", "🎉", "e\u0301", "👩\u200d👩\u200d👧", "🇨🇭", "👍🏽"]
)
@pytest.mark.parametrize("before", range(4))
def test_a_line_without_end_is_cut_between_characters(character, before):
    text = "x" * before + character * 40
    for block in blocks([text.encode()], 4):
        left = block.decode().lstrip("x").replace(character, "")
        assert left == ""


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return make_tokenizer(make(request.param, tmp_path_factory.mktemp("tokenizers")))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    words=st.lists(st.sampled_from(["def", "x", "return", "f1", "tabs", "and"]), min_size=8),
    spaces=st.lists(st.sampled_from([" ", "\n", "\n\t", ", ", ": # é, "]), min_size=3, max_size=5),
    size=st.integers(8, 40),
)
def test_tokens_of_blocks_are_the_tokens_of_the_text(tokenizer, words, spaces, size):
    spaces = [" ", *spaces]
    text = "".join(word + spaces[n % len(spaces)] for n, word in enumerate(words)) + "x"
    reader = TokenStream(tokenizer, [text.encode()], starts_document=True, size=size)
    ids = np.concatenate(list(reader.tokens()))
    assert ids[0] == tokenizer.bos_id
    assert ids[1:].tolist() == tokenizer.encode(text).tolist()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(text=TEXTS, size=st.integers(1, 30), data=st.data(), fresh=st.booleans())
def test_a_reader_goes_on_with_the_same_tokens(tokenizer, text, size, data, fresh):
    raw = text.encode()
    stream = functools.partial(TokenStream, tokenizer, size=size)
    whole = np.concatenate(list(stream([raw], starts_document=fresh).tokens()))
    taken = data.draw(st.integers(0, len(whole)))
    first, held = stream([raw], starts_document=fresh), 0
    for ids in first.tokens():
        held += len(ids)
        if held >= taken:
            break
    place = parse_position(first.position(taken, []).notes())
    rest = list(stream([raw], starts_document=True, position=place).tokens())
    np.testing.assert_array_equal(np.concatenate([whole[:0], *rest]), whole[taken:])
    again = stream([raw], starts_document=True, position=place)
    seen = 0
    for ids in again.tokens():  # stopped again
        seen += len(ids)
    end = parse_position(again.position(seen, []).notes())
    rest = list(stream([raw], starts_document=True, position=end).tokens())
    assert sum(map(len, rest)) == 0
    other = stream([b"\xff" + raw], starts_document=True, position=place)
    with pytest.raises(ConfigError, match="of another text"):
        list(other.tokens())


@pytest.mark.parametrize(
    "change",
    [
        {"offset": -1}, {"offset": "3"}, {"skip": True}, {"sha256": None}, {"fresh": 1},
        {"buckets": 3}, {"buckets": [3]}, {"buckets": [{}]},
        {"buckets": [{"first": 1, "last": "x"}]},
    ],
)  # fmt: skip
def test_a_forged_place_is_refused(change):
    reader = TokenStream(make_tokenizer("byte"), [b"a text"], starts_document=True)
    list(reader.tokens())
    notes = reader.position(3, [Bucket(1, 1024, 2, 0.5, 2.0, {"decay": 0.1})]).notes()
    assert parse_position(notes).notes() == notes
    for wrong in (notes | change, [], None, 3):
        with pytest.raises(ConfigError, match="position in the session cannot be read"):
            parse_position(wrong)
