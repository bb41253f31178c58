"""Streaming: a text of any length through a model, in constant memory."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.stream.read import Bucket, Reading, read

__all__ = ["Bucket", "Reading", "read"]

lazy.package(__name__, {".read": ("Bucket", "Reading", "read")})
