"""The tokenizer of nucleotides: the code of IUPAC, complements, and what is no nucleotide."""

import numpy as np
import pytest

from miras.data import make_tokenizer
from miras.data.tokenizers.nucleotide import complement
from miras.errors import ConfigError


def test_ids_fold_case_and_read_ambiguous_letters_as_n():
    tokenizer = make_tokenizer("nucleotide")
    ids = tokenizer.encode("ACGTNacgtnUuRYSWKMBDHVrysw")
    assert ids.dtype == np.int32
    assert ids.tolist() == [0, 1, 2, 3, 4] * 2 + [3, 3] + [4] * 14
    assert tokenizer.decode([5, *ids[:6], 9, -1]) == "ACGTNA"
    assert tokenizer.encode(b" A\tC\r\nG\n").tolist() == [0, 1, 2]
    assert tokenizer.encode("").tolist() == []


def test_its_contract():
    tokenizer = make_tokenizer("nucleotide")
    assert (tokenizer.vocab_size, tokenizer.bos_id) == (6, 5)
    assert tokenizer.byte_lengths.tolist() == [1, 1, 1, 1, 1, 0]
    assert tokenizer.byte_lengths.dtype == np.float32


def test_complements():
    tokenizer = make_tokenizer("nucleotide")
    assert tokenizer.decode(complement(tokenizer.encode("ACGTN"))) == "TGCAN"
    assert complement(np.array([5])).tolist() == [5]
    ids = np.arange(6)
    assert complement(complement(ids)).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("text", "letter", "place"),
    [("ACGX", "X", 3), ("AC-GT", "-", 2), ("é", "é", 0), ("A*", r"\*", 1)],
)
def test_other_letters_are_named_with_their_place(text, letter, place):
    with pytest.raises(ConfigError, match=f"'{letter}' at position {place} of .* is no nucleotide"):
        make_tokenizer("nucleotide").encode(text)
