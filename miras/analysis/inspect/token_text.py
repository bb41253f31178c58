"""Tokens as visible text, for any bytes."""

import codecs

from miras.data import Tokenizer

START = "⊢"
PART = "‥"  # the first bytes of a character that a later token completes
_SIGNS = {" ": "·", "\n": "↵", "\t": "⇥"}


def visible_tokens(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    r"""The visible text of each token, never empty: `·` for a space, `↵` for a newline, `\xff`.

    A character of several tokens is shown at the last of them; the document start is `⊢`, any other
    control id is `⟨id⟩`.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    shown = []
    for n, i in enumerate(ids):
        piece = _bytes(tokenizer, ids[n - 1 : n] if n else [], i)
        text = "".join(map(_visible, decoder.decode(piece, n == len(ids) - 1)))
        if not piece:
            text += START if i == tokenizer.bos_id else f"⟨{i}⟩"
        shown.append(text or PART)
    return shown


def _bytes(tokenizer: Tokenizer, before: list[int], i: int) -> bytes:
    """The bytes of a token after another one: some tokenizers drop a text's first space."""
    if tokenizer.byte_lengths[i] == 0:
        return b""
    alone = tokenizer.decode_bytes(before)
    both = tokenizer.decode_bytes([*before, i])
    return both[len(alone) :] if both.startswith(alone) else tokenizer.decode_bytes([i])


def _visible(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    code = ord(character)
    if code < 128 and not character.isprintable():
        return f"\\x{code:02x}"
    return character if character.isprintable() else f"⟨U+{code:04X}⟩"
