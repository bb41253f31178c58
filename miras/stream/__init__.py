"""Streaming: a text of any length through a model, in constant memory."""

from miras.stream.read import Bucket, Reading, read

__all__ = ["Bucket", "Reading", "read"]
