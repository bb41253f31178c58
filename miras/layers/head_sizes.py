"""head_sizes: how many heads a layer has of queries, keys and values, and how wide they are."""

from typing import NamedTuple

from miras.config import require
from miras.layers.config import LayerConfig


class HeadSizes(NamedTuple):
    """Heads of a layer and their widths.

    Attributes:
        queries: number of heads of queries.
        keys: number of heads of keys.
        values: number of heads of values.
        key: width of a head's queries and keys.
        value: width of a head's values and reads.
    """

    queries: int
    keys: int
    values: int
    key: int
    value: int


def head_widths(config: LayerConfig, width: int, heads: int) -> tuple[int, int]:
    """The widths of a head's keys and of its values; see `head_sizes`."""
    return config.key_width or width // heads, config.value_width or width // heads


def head_sizes(config: LayerConfig, width: int, heads: int) -> HeadSizes:
    """The sizes of a layer of `heads` memories for tokens of a width.

    Raises:
        ConfigError: a width or a number of heads is not a divisor as it has to be.
    """
    sized = config.key_width is not None and config.value_width is not None
    require(
        sized or width % heads == 0,
        f"width={width} must be a multiple of heads={heads}, unless layer.key_width and "
        "layer.value_width are given.",
    )
    for name in ("kv_heads", "key_heads"):
        grouped = getattr(config, name)
        require(
            heads % (grouped or heads) == 0,
            f"heads={heads} must be a multiple of {name}={grouped}.",
        )
    key, value = head_widths(config, width, heads)
    return HeadSizes(
        queries=config.key_heads or heads,
        keys=config.key_heads or config.kv_heads or heads,
        values=config.kv_heads or heads,
        key=key,
        value=value,
    )
