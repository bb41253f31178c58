"""The logical axes of the arrays of a call: which are split by rows and which by heads."""

from jax.sharding import PartitionSpec

from miras.attention.cache import KVState
from miras.backends.base import ScanInputs, ScanResult
from miras.engine.state import State
from miras.parallel.shard import HEADS, ROWS

_ROW = PartitionSpec(ROWS)
_HEAD = PartitionSpec(HEADS)
_MEMORY = PartitionSpec(ROWS, HEADS)
_TOKEN = PartitionSpec(ROWS, None)
_STREAM = PartitionSpec(ROWS, None, HEADS)

STATE = State(
    A=_MEMORY,  # pyright: ignore[reportArgumentType]  PartitionSpec in the place of arrays
    S=_MEMORY,
    V=_MEMORY,
    R=_MEMORY,
    L=_MEMORY,
    window=_MEMORY,
    sweeps=_MEMORY,
    position=_ROW,
    segment=_ROW,
    carried=_MEMORY,
)


def cache_axes(*, grows: bool, reserved: bool) -> KVState:
    """The axes of the tokens that an attention keeps, with the state's static fields."""
    return KVState(
        k=_STREAM,  # pyright: ignore[reportArgumentType]
        v=_STREAM,
        visible=_ROW,
        segment=_ROW,
        length=_ROW,
        last_id=_ROW,
        last_segment=_ROW,
        grows=grows,
        reserved=reserved,
    )


def inputs_axes(state: State | KVState | None) -> ScanInputs:
    """The axes of `ScanInputs`, of which `state` continues from the given axes."""
    return ScanInputs(
        W0=_HEAD,  # pyright: ignore[reportArgumentType]
        q=_STREAM,
        k=_STREAM,
        v=_STREAM,
        gates=_STREAM,
        k_write=_STREAM,
        state=state,
        segment_ids=_TOKEN,
        mask=_TOKEN,
        average=PartitionSpec(),
    )


def result_axes(state: State | KVState) -> ScanResult:
    """The axes of `ScanResult`, whose state has the given axes."""
    return ScanResult(y=_STREAM, state=state, loss=_STREAM)  # pyright: ignore[reportArgumentType]
