"""Where a text of any length is cut, so that its blocks give the tokens of the whole.

A block ends between a letter or digit and a space, where tokenizers divide text in any case. Where
the cuts lie depends on the text alone, not on the sizes in which it is read from disk.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

SIZE = 1 << 16  # bytes of a block at most, where there is a space
_LONGEST = 16  # times SIZE: a block of text without spaces

_SPACE = re.compile(r"[^\W_](?= )")
_WHITE = re.compile(r"[^\W_](?=\s)")
_JOINER = "\u200d"
_CLUSTER = 32  # characters looked back to find where the last one that is seen begins


def blocks(parts: Iterable[bytes], size: int = SIZE) -> Iterator[bytes]:
    """Cut a text into blocks that, joined, are the text.

    No block ends within a UTF-8 character. Text without a space, of 16 times `size`, is cut before
    other white space, or else between two characters that are not shown as one.

    Args:
        parts: the text's bytes, in parts of any sizes.
        size: bytes of a block, at most; 16 times as many without spaces. >= 1.
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
    """Where the first block ends; 0 where more must be read to know."""
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
        text = text[:-1]  # perhaps a character that the next bytes complete
    place = len(text) - 1
    while 0 < place > len(text) - _CLUSTER and _joined(text, place):
        place -= 1
    whole = place <= 0 or _joined(text, place)
    return _bytes(text if whole else text[:place])


def _joined(text: str, place: int) -> bool:
    """Whether the character at a place is shown together with the one before it."""
    here, before = text[place], text[place - 1]
    return (
        unicodedata.category(here) in ("Mn", "Mc", "Me")
        or _JOINER in (here, before)
        or "\U0001f3fb" <= here <= "\U0001f3ff"  # a skin's tone
        or all("\U0001f1e6" <= each <= "\U0001f1ff" for each in (here, before))  # a flag
    )


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
