"""Text from files or TFDS, tokenized, packed into rows and read with a restorable position."""

from miras.data.config import DataConfig
from miras.data.loader import make_loader
from miras.data.local_text import LocalText
from miras.data.tokenizer import ByteTokenizer, Tokenizer, make_tokenizer

__all__ = [
    "ByteTokenizer",
    "DataConfig",
    "LocalText",
    "Tokenizer",
    "make_loader",
    "make_tokenizer",
]
