"""Rows of text from files or TFDS, or of a task, read with a position that can be restored."""

from miras.data.config import DataConfig
from miras.data.loader import make_loader
from miras.data.local_text import LocalText
from miras.data.tokenizers.text_decoder import TextDecoder
from miras.data.tokenizers.tokenizer import ByteTokenizer, Tokenizer, make_tokenizer
from miras.data.tokenizers.vocabulary import check_text, vocabulary

__all__ = [
    "ByteTokenizer",
    "DataConfig",
    "LocalText",
    "TextDecoder",
    "Tokenizer",
    "check_text",
    "make_loader",
    "make_tokenizer",
    "vocabulary",
]
