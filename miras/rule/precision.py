"""Precision: the dtypes in which a memory is kept, multiplied and summed.

Products are rounded in `miras.backends.xla.rounding`; `prepare` in `miras.backends.xla.tiling` sets
the dtype of the state.
"""

import dataclasses
from typing import Literal

from jax.typing import DTypeLike

from miras.config import Config, require
from miras.memory import Memory


@dataclasses.dataclass(frozen=True)
class Precision(Config):
    """How a memory rounds. What each setting costs in accuracy is measured in docs/precision.md.

    Everything else is computed in float32, or in float64 for float64 inputs: decays, gates, norms,
    element-wise steps and products with vectors.

    Attributes:
        state: of what is carried from one chunk to the next and kept for the backward pass, and of
            its gradient. "float32" stands for float64 where the inputs are float64.
        matmul: of what enters a product of two matrices, in the step and in its derivative.
            "default" leaves it to the device: full float32 on a CPU, one pass of bfloat16 on a TPU,
            TF32 on most GPUs. "float32" asks every device for all bits, "bfloat16" rounds on every
            device. Sums of log decays always have all bits.
        accumulation: in which those products are summed up and handed on.

    Raises:
        ConfigError: for a setting that is not among these, or sums narrower than what they sum.
    """

    state: Literal["float32", "bfloat16"] = "float32"
    matmul: Literal["default", "float32", "bfloat16"] = "default"
    accumulation: Literal["float32", "bfloat16"] = "float32"

    def validate(self) -> None:
        """Refuse sums that are narrower than what they sum."""
        require(
            self.accumulation == "float32" or self.matmul == "bfloat16",
            f"precision.accumulation={self.accumulation!r} is narrower than what enters the "
            f"products, precision.matmul={self.matmul!r}: set precision.matmul=bfloat16 too, or "
            "leave precision.accumulation=float32.",
        )

    def kept(self, computed: DTypeLike) -> DTypeLike:
        """The dtype of a state, given the one that its step is computed in."""
        return computed if self.state == "float32" else self.state

    def check_memory(self, memory: Memory) -> None:
        """Raise `ConfigError` for anything but the defaults beside attention."""
        require(
            not memory.keeps_tokens or self == DEFAULT_PRECISION,
            f"precision is of a memory that learns: memory {memory.kind!r} keeps its tokens in "
            "their own dtype and takes the defaults only; leave precision out.",
        )


DEFAULT_PRECISION = Precision()
