"""The tokenizers that need no file, by the name that `data.tokenizer` has."""

from __future__ import annotations

from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.byte import ByteTokenizer
from miras.data.tokenizers.nucleotide import NucleotideTokenizer

BUILT_IN: dict[str, type[Tokenizer]] = {"byte": ByteTokenizer, "nucleotide": NucleotideTokenizer}
