"""Triton, the compiler of GPU kernels: the registry of its lowerings, and what it has itself.

Its rules are in `lowerings` and `data_movement`.
"""

from jax.extend.core import JaxprEqn

from miras.backends.pallas.gpu.padded import padded
from miras.backends.pallas.trace.jaxprs import in_avals, out_avals
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.primitives import named
from miras.backends.pallas.trace.shared_lowerings import SHARED

# What Pallas's Triton of jax 0.10.2 lowers as it is. Later versions may have more.
ELEMENTWISE = named(
    "abs add add_any and atan2 bitcast_convert_type ceil clamp convert_element_type cos div eq "
    "erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min "
    "mul ne neg not one_minus_square or pow rem reshard rsqrt select_n shift_left "
    "shift_right_arithmetic shift_right_logical sign sin sqrt square stop_gradient sub tan "
    "tanh xor"
)

TRITON = Lowerings("GPU", SHARED)
TRITON.native(*ELEMENTWISE)


def is_elementwise(eqn: JaxprEqn) -> bool:
    """Whether an equation computes each entry of its result from the same entry of its inputs."""
    return eqn.primitive in ELEMENTWISE or eqn.primitive.name in ELEMENTWISE


def in_shapes(eqn: JaxprEqn) -> list[tuple[int, ...]]:
    """The shapes of an equation's inputs without padding."""
    return [aval.shape for aval in in_avals(eqn)]


def padded_result(eqn: JaxprEqn) -> tuple[int, ...]:
    """The padded shape of an equation's result."""
    return padded(out_avals(eqn)[0].shape)
