"""Rows of text from files or TFDS, or of a task, read with a position that can be restored."""

from miras.data.config import DataConfig
from miras.data.loader import make_loader
from miras.data.local_text import LocalText
from miras.data.text_decoder import TextDecoder
from miras.data.tokenizer import ByteTokenizer, Tokenizer, make_tokenizer
from miras.data.vocabulary import check_text, vocabulary

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
