"""The tokenizer that a config names."""

from __future__ import annotations

import pathlib

from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.built_in import BUILT_IN
from miras.data.tokenizers.hugging_face import HuggingFaceTokenizer
from miras.data.tokenizers.sentence_piece import SentencePieceTokenizer
from miras.data.tokenizers.tokenizer_file import tokenizer_file
from miras.errors import ConfigError


def make_tokenizer(spec: str) -> Tokenizer:
    """Returns the tokenizer that ``spec`` names.

    Args:
        spec: ``"byte"``, ``"nucleotide"``, the path of a SentencePiece ``.model``, or the path of a
            Hugging Face ``tokenizer.json``, on disk or at ``gs://`` or ``s3://``.

    Raises:
        ConfigError: the file is missing, is of another format or cannot be read, or its library is
            not installed.
    """
    if spec in BUILT_IN:
        return BUILT_IN[spec]()
    classes = {
        ".model": SentencePieceTokenizer,
        ".json": HuggingFaceTokenizer,
    }
    suffix = pathlib.PurePosixPath(spec).suffix
    if suffix not in classes:
        raise ConfigError(
            f"tokenizer {spec!r} is unknown: give 'byte', 'nucleotide', the path of a "
            "SentencePiece '.model' file, or the path of a Hugging Face tokenizers '.json' file."
        )
    path = tokenizer_file(spec)
    if not path.is_file():
        raise ConfigError(f"tokenizer file {spec!r} does not exist: check the path, or use 'byte'.")
    return classes[suffix](path)
