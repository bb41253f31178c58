"""Splits a text of any length into blocks whose tokens, joined, are the tokens of the whole text.

A block ends between a letter or digit and a space, where every tokenizer splits text. The ends of
blocks depend on the text alone, not on the sizes in which it is read from disk.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

SIZE = 1 << 16  # maximum bytes of a block, if it has a space
_LONGEST = 16  # times SIZE: maximum bytes of a block without spaces

_SPACE = re.compile(r"[^\W_](?= )")
_WHITE = re.compile(r"[^\W_](?=\s)")
_JOINER = "\u200d"
_CLUSTER = 32  # characters to look back for the start of the last grapheme


def blocks(parts: Iterable[bytes], size: int = SIZE) -> Iterator[bytes]:
    """Split a text into blocks that, joined, are the text.

    No block ends within a UTF-8 character. A text without a space in 16 times `size` bytes is
    split before other white space, or else between two graphemes.

    Args:
        parts: the text's bytes, in parts of any sizes.
        size: maximum bytes of a block, >= 1; 16 times as many without spaces.
    """
    held = b""
    for part in parts:
        held += part
        while (edge := _edge(held, size)) > 0:
            yield held[:edge]
            held = held[edge:]
    if held:
        yield held


def _edge(held: bytes, size: int) -> int:
    """The end of the first block; 0 if more must be read to find it."""
    most = size * _LONGEST
    for edge, limit in ((_SPACE, size), (_SPACE, most), (_WHITE, most)):
        if len(held) <= limit:
            return 0
        text = held[:limit].decode("utf-8", "surrogateescape")
        last = 0
        for found in edge.finditer(text):
            last = found.end()
        if last:
            return _bytes(text[:last])
    return _between_characters(held[:most])


def _between_characters(block: bytes) -> int:
    text = block.decode("utf-8", "surrogateescape")
    while len(text) > 1 and len(block) - _bytes(text) < 3 and "\udc80" <= text[-1] <= "\udcff":
        text = text[:-1]  # the next bytes may complete a character
    index = len(text) - 1
    while 0 < index > len(text) - _CLUSTER and _joined(text, index):
        index -= 1
    whole = index <= 0 or _joined(text, index)
    return _bytes(text if whole else text[:index])


def _joined(text: str, index: int) -> bool:
    """Whether a character belongs to the same grapheme as the one before it."""
    here, before = text[index], text[index - 1]
    return (
        unicodedata.category(here) in ("Mn", "Mc", "Me")
        or _JOINER in (here, before)
        or "\U0001f3fb" <= here <= "\U0001f3ff"  # skin tone
        or all("\U0001f1e6" <= each <= "\U0001f1ff" for each in (here, before))  # a flag
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
