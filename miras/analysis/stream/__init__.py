"""Streaming: read a text of any length with a model, in constant memory."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.stream.read import Bucket, StreamResult, read_stream

__all__ = ["Bucket", "StreamResult", "read_stream"]

lazy.package(__name__, {".read": ("Bucket", "StreamResult", "read_stream")})
