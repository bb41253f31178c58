"""The arrays of a row, as a config describes it."""

from miras.data.config import DataConfig
from miras.data.rows import token_layout
from miras.parallel.batches import Layout


def row_layout(data: DataConfig) -> Layout:
    """The arrays of a row of a config."""
    own = None if data.task is None else data.task.layout(data)
    return token_layout(data.sequence) if own is None else own
