"""Incremental decoding: the concatenated parts equal the text decoded as a whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping
from typing import Any

from miras.config import require
from miras.data.tokenizers.base import Tokenizer


class TextDecoder:
    """Decodes ids incrementally, in whole characters.

    A character of several ids is returned with the last of them; bytes that are not UTF-8 become
    U+FFFD. Spaces that a tokenizer drops at the start of a text are dropped only there. If the
    tokenizer is not `local`, `finish` returns all text.

    Args:
        tokenizer: of the ids.
        state: a previous `state` to resume from.

    Raises:
        ConfigError: the state is invalid.
    """

    def __init__(self, tokenizer: Tokenizer, state: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending: list[int] = []  # ids before any visible text, or all ids if not local
        self._emitted = 0  # bytes of the pending ids that were returned
        self._previous: int | None = None  # the last id with text, after visible text
        self._started = False
        self._visible_prefix = _visible_ids(tokenizer) if tokenizer.local else []
        if state is not None:
            self._restore(state)

    def feed(self, ids: Iterable[int]) -> str:
        """The text that further ids complete."""
        return "".join(self._characters.decode(self._bytes(int(i))) for i in ids)

    def feed_text(self, text: bytes, ids: Iterable[int]) -> str:
        """The text of a prompt or a file, which is returned unchanged; `ids` are its tokens."""
        for i in ids:
            self._bytes(int(i))
        if self._pending:
            self._emitted = len(self._tokenizer.decode_bytes(self._pending))
        return self._characters.decode(text)

    def finish(self) -> str:
        """The remaining text, with U+FFFD for an incomplete character."""
        left = b""
        if not self._tokenizer.local:
            left = self._tokenizer.decode_bytes(self._pending)[self._emitted :]
            self._emitted += len(left)
        return self._characters.decode(left, final=True)

    @property
    def state(self) -> dict[str, Any]:
        """The position in the text, as JSON values."""
        return {
            "held": list(self._pending),
            "shown": self._emitted,
            "previous": self._previous,
            "begun": self._started,
            "bytes": self._characters.getstate()[0].hex(),
        }

    def _bytes(self, i: int) -> bytes:
        """The bytes that an id adds to the text."""
        tokenizer = self._tokenizer
        if not 0 <= i < tokenizer.vocab_size or tokenizer.byte_lengths[i] == 0:
            return b""  # a control id
        if self._started:
            before = [*self._visible_prefix, *([] if self._previous is None else [self._previous])]
            self._previous = i
            return tokenizer.decode_bytes([*before, i])[len(tokenizer.decode_bytes(before)) :]
        self._pending.append(i)
        if not tokenizer.local:
            return b""
        text = tokenizer.decode_bytes(self._pending)
        new, self._emitted = text[self._emitted :], len(text)
        if text.strip():
            self._pending, self._emitted, self._previous, self._started = [], 0, i, True
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
            and len(raw) <= 6  # bytes of an incomplete character
        )
        require(legal, f"text state {str(dict(state))[:60]} is not a state that a session wrote.")
        try:
            waiting = bytes.fromhex(raw)  # pyright: ignore[reportArgumentType]
        except ValueError:
            waiting = b""
        self._pending, self._emitted = list(held), shown  # pyright: ignore
        self._previous, self._started = previous, begun  # pyright: ignore
        self._characters.decode(waiting)


def mid_text_state(previous: int | None = None) -> dict[str, Any]:
    """The state of a `TextDecoder` within a text, after whole characters.

    Args:
        previous: the last id with text.
    """
    return {"held": [], "shown": 0, "previous": previous, "begun": True, "bytes": ""}


def _visible_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids with visible text, which precede another id so that it is not at the start."""
    lengths = tokenizer.byte_lengths
    ids = [int(i) for i in tokenizer.encode("a") if lengths[i] > 0]
    if tokenizer.decode_bytes(ids).strip():
        return ids
    visible = (i for i in range(tokenizer.vocab_size) if lengths[i] > 0)
    return next(([i] for i in visible if tokenizer.decode_bytes([i]).strip()), [])
