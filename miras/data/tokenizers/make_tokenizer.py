"""The tokenizer that a config names."""

from __future__ import annotations

from miras.data.tokenizers.base import Tokenizer
from miras.data.tokenizers.byte import ByteTokenizer
from miras.data.tokenizers.hugging_face import HuggingFaceTokenizer
from miras.data.tokenizers.sentence_piece import SentencePieceTokenizer
from miras.errors import ConfigError
from miras.runtime.files import expand_home
from miras.runtime.paths import is_remote


def make_tokenizer(spec: str) -> Tokenizer:
    """Returns the tokenizer that ``spec`` names.

    Args:
        spec: ``"byte"``, the path of a SentencePiece ``.model``, or the path of a Hugging Face
            ``tokenizer.json``.

    Raises:
        ConfigError: the file is missing, is of another format or cannot be read, or its library is
            not installed.
    """
    if spec == "byte":
        return ByteTokenizer()
    if is_remote(spec):
        raise ConfigError(
            f"tokenizer file {spec!r} must be a local file: copy it to this machine, and give the "
            "path of the copy."
        )
    path = expand_home(spec)
    classes = {
        ".model": SentencePieceTokenizer,
        ".json": HuggingFaceTokenizer,
    }
    if path.suffix not in classes:
        raise ConfigError(
            f"tokenizer {spec!r} is unknown: give 'byte', the path of a SentencePiece '.model' "
            "file, or the path of a Hugging Face tokenizers '.json' file."
        )
    if not path.is_file():
        raise ConfigError(f"tokenizer file {spec!r} does not exist: check the path, or use 'byte'.")
    return classes[path.suffix](path)
