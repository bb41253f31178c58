"""What tokenizers read from files share: a table of the bytes that each id represents.

Their libraries are optional (the extra ``tokenizers``) and imported when a file is opened.
"""

from __future__ import annotations

import hashlib
import importlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from miras.data.tokenizers.base import Tokenizer
from miras.errors import ConfigError

_LINE = "a\n"
SPACE = "\u2581"  # how both libraries write a space inside a piece


class PieceTokenizer(Tokenizer):
    """A tokenizer whose ids each represent fixed bytes.

    Args:
        path: the file, whose digest is the fingerprint.
        pieces: the bytes of each id.
        bos_id: the id of the document start; None appends a new id, as the file has none.
    """

    def __init__(self, path: pathlib.Path, pieces: Sequence[bytes], bos_id: int | None) -> None:
        self._pieces = list(pieces)
        if bos_id is None:
            bos_id = len(self._pieces)
            self._pieces.append(b"")
        self.bos_id = bos_id
        self._pieces[bos_id] = b""
        self.vocab_size = len(self._pieces)
        self.byte_lengths = np.array([len(piece) for piece in self._pieces], np.float32)
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()

    def encode_next(self, text: bytes | str) -> np.ndarray:
        """Returns the ids of ``text`` after a line of other text, without those of the line."""
        text = as_text(text)
        whole, before = self.encode(_LINE + text), self.encode(_LINE)
        same = len(whole) >= len(before) and bool((whole[: len(before)] == before).all())
        return whole[len(before) :] if same else self.encode(text)

    def _join(self, ids) -> bytes:
        ids = np.asarray(ids, np.int64).reshape(-1).tolist()
        return b"".join(self._pieces[i] for i in ids if 0 <= i < self.vocab_size)


def as_text(text: bytes | str) -> str:
    """The text as a string; bytes that are not UTF-8 become U+FFFD."""
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")


def import_library(name: str, path: pathlib.Path) -> Any:
    """The library that reads a tokenizer file.

    Raises:
        ConfigError: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"tokenizer file {str(path)!r} needs the package {name!r}, which is not installed: "
            f"run pip install {name}."
        ) from error


def unreadable_file(path: pathlib.Path, kind: str, why: object) -> ConfigError:
    """The error for a file that its library cannot read as `kind`."""
    reason = str(why).splitlines()[0] if str(why) else type(why).__name__
    return ConfigError(
        f"tokenizer file {str(path)!r} cannot be read as a {kind} file ({reason}): "
        "give a file that the library itself wrote, or use 'byte'."
    )
