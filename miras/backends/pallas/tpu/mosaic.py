"""Mosaic, the compiler of TPU kernels: what it knows."""

from miras.backends.pallas.trace.rewrites import CALLS, FORMS, TPU
from miras.backends.pallas.trace.support import Compiler

# What Mosaic, the TPU's compiler of kernels, lowers as it is (jax 0.10).
LOWERED = frozenset(
    word
    for line in (
        "abs add add_any and argmax argmin atan2 bitcast_convert_type ceil clamp concatenate",
        "convert_element_type copy cos div eq erf erf_inv exp exp2 floor ge gt integer_pow iota",
        "is_finite le log log1p logistic lt max min mul ne neg nextafter not or population_count",
        "one_minus_square reduce_and reduce_max reduce_min reduce_or reduce_sum rem reshard round",
        "rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin slice split",
        "sqrt square squeeze stack stop_gradient sub tan tanh tile unstack xor",
    )
    for word in line.split()
)

MOSAIC = Compiler("TPU", LOWERED, CALLS | TPU, FORMS)
