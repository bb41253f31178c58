"""The logical axes of the arrays of a call: which are split by rows and which by heads.

They stand in the place of the arrays, as `miras.parallel.shard.over_mesh` takes them.
"""

from typing import Any

from jax.sharding import PartitionSpec

from miras.attention.cache import KVState
from miras.backends.base import ScanInputs, ScanResult
from miras.engine.state import State
from miras.parallel.shard import HEADS, ROWS

_ROW: Any = PartitionSpec(ROWS)
_HEAD: Any = PartitionSpec(HEADS)
_MEMORY: Any = PartitionSpec(ROWS, HEADS)
_TOKEN: Any = PartitionSpec(ROWS, None)
_WHOLE: Any = PartitionSpec()
_STREAM: Any = PartitionSpec(ROWS, None, HEADS)

STATE = State(
    A=_MEMORY,
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
        k=_STREAM,
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
        W0=_HEAD,
        q=_STREAM,
        k=_STREAM,
        v=_STREAM,
        gates=_STREAM,
        k_write=_STREAM,
        state=state,
        segment_ids=_TOKEN,
        mask=_TOKEN,
        average=_WHOLE,
    )


def result_axes(state: Any) -> ScanResult:
    """The axes of `ScanResult`, whose state has the given axes."""
    return ScanResult(y=_STREAM, state=state, loss=_STREAM)
