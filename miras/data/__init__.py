"""Batches of text from files or TFDS, or of a task, with a position that can be restored.

Public names are imported on first use, so that the config of data needs neither Grain nor TFDS.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.data.config import DataConfig, TaskConfig
    from miras.data.loader import make_loader
    from miras.data.text.local_text import LocalText
    from miras.data.tokenizers.base import Tokenizer
    from miras.data.tokenizers.byte import ByteTokenizer
    from miras.data.tokenizers.make_tokenizer import make_tokenizer
    from miras.data.tokenizers.text_decoder import TextDecoder
    from miras.data.vocabulary import check_language_model, check_text, vocabulary

__all__ = [
    "ByteTokenizer",
    "DataConfig",
    "LocalText",
    "TaskConfig",
    "TextDecoder",
    "Tokenizer",
    "check_language_model",
    "check_text",
    "make_loader",
    "make_tokenizer",
    "vocabulary",
]

lazy.package(
    __name__,
    {
        ".config": ("DataConfig", "TaskConfig"),
        ".loader": ("make_loader",),
        ".text.local_text": ("LocalText",),
        ".tokenizers.base": ("Tokenizer",),
        ".tokenizers.byte": ("ByteTokenizer",),
        ".tokenizers.make_tokenizer": ("make_tokenizer",),
        ".tokenizers.text_decoder": ("TextDecoder",),
        ".vocabulary": ("check_language_model", "check_text", "vocabulary"),
    },
)
