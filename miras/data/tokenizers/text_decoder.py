"""Text from ids that come one by one: the parts, joined, are the text decoded whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

from miras.config import require
from miras.data.tokenizers.base import Tokenizer


class TextDecoder:
    """Decodes ids as they come, in whole characters.

    A character of several ids is given out with the last of them; bytes that are not UTF-8 become
    U+FFFD. The spaces that a tokenizer drops at a text's beginning are dropped there only. Where a
    tokenizer is not `local`, all text comes with `finish`.

    Args:
        tokenizer: of the ids.
        state: where to go on from, as `state` gave it.

    Raises:
        ConfigError: for an invalid state.
    """

    def __init__(self, tokenizer: Tokenizer, state: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: list[int] = []  # of a text that shows nothing yet, or all that cannot be shown
        self._shown = 0  # bytes of theirs that were given out
        self._previous: int | None = None  # the last id with text, once something shows
        self._begun = False
        self._anchor = _anchor(tokenizer) if tokenizer.local else []
        if state is not None:
            self._restore(state)

    def feed(self, ids: Iterable[int]) -> str:
        """The text that more ids complete."""
        return "".join(self._characters.decode(self._bytes(int(i))) for i in ids)

    def feed_text(self, text: bytes, ids: Iterable[int]) -> str:
        """More text as it is given, where a prompt or a file says so; `ids` are its tokens."""
        for i in ids:
            self._bytes(int(i))
        if self._held:
            self._shown = len(self._tokenizer.decode_bytes(self._held))
        return self._characters.decode(text)

    def finish(self) -> str:
        """What is left: text that was held, and U+FFFD for a character that is not whole."""
        left = b""
        if not self._tokenizer.local:
            left = self._tokenizer.decode_bytes(self._held)[self._shown :]
            self._shown += len(left)
        return self._characters.decode(left, final=True)

    @property
    def state(self) -> dict[str, Any]:
        """Where the text stands, as JSON values."""
        return {
            "held": list(self._held),
            "shown": self._shown,
            "previous": self._previous,
            "begun": self._begun,
            "bytes": self._characters.getstate()[0].hex(),
        }

    def _bytes(self, i: int) -> bytes:
        """What one more id adds to the text."""
        tokenizer = self._tokenizer
        if not 0 <= i < tokenizer.vocab_size or tokenizer.byte_lengths[i] == 0:
            return b""  # a control id
        if self._begun:
            before = [*self._anchor, *([] if self._previous is None else [self._previous])]
            self._previous = i
            return tokenizer.decode_bytes([*before, i])[len(tokenizer.decode_bytes(before)) :]
        self._held.append(i)
        if not tokenizer.local:
            return b""
        text = tokenizer.decode_bytes(self._held)
        new, self._shown = text[self._shown :], len(text)
        if text.strip():
            self._held, self._shown, self._previous, self._begun = [], 0, i, True
        return new

    def _restore(self, state: Mapping[str, Any]) -> None:
        held, shown, previous, begun, raw = (
            state.get(name) for name in ("held", "shown", "previous", "begun", "bytes")
        )
        size = self._tokenizer.vocab_size
        legal = (
            isinstance(held, list)
            and all(type(i) is int and 0 <= i < size for i in held)
            and type(shown) is int
            and shown >= 0
            and (previous is None or (type(previous) is int and 0 <= previous < size))
            and type(begun) is bool
            and isinstance(raw, str)
            and len(raw) <= 6  # bytes of a character that is not whole
        )
        require(legal, f"text state {str(dict(state))[:60]} is none that a session wrote.")
        try:
            waiting = bytes.fromhex(raw)  # pyright: ignore[reportArgumentType]
        except ValueError:
            waiting = b""
        self._held, self._shown, self._previous, self._begun = list(held), shown, previous, begun  # pyright: ignore
        self._characters.decode(waiting)


def mid_text_state(previous: int | None = None) -> dict[str, Any]:
    """The state of a `TextDecoder` after whole characters of some text, whose last id it was."""
    return {"held": [], "shown": 0, "previous": previous, "begun": True, "bytes": ""}


def _anchor(tokenizer: Tokenizer) -> list[int]:
    """Ids whose text can be seen, so that what follows is no beginning."""
    lengths = tokenizer.byte_lengths
    ids = [int(i) for i in tokenizer.encode("a") if lengths[i] > 0]
    if tokenizer.decode_bytes(ids).strip():
        return ids
    visible = (i for i in range(tokenizer.vocab_size) if lengths[i] > 0)
    return next(([i] for i in visible if tokenizer.decode_bytes([i]).strip()), [])
