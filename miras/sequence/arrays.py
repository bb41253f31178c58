"""Arrays: what callers give, as arrays in the dtypes that miras computes in, or why not.

What values mean, and which shapes fit together, is checked in `checks`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from miras.array_typing import Array
from miras.backends.base import ScanInputs
from miras.config import require
from miras.errors import ConfigError

FLOATS = ("bfloat16", "float32", "float64")


def as_arrays(inputs: ScanInputs) -> ScanInputs:
    """The inputs of a call as jax arrays; raises `ConfigError` for what is none."""
    given = {name: getattr(inputs, name) for name in ("k_write", "mask", "average")}
    ids = inputs.segment_ids
    return inputs._replace(
        W0={name: as_array(f"W0[{name!r}]", leaf) for name, leaf in inputs.W0.items()},
        **{name: as_array(name, getattr(inputs, name)) for name in ("q", "k", "v")},
        gates=None
        if inputs.gates is None
        else {name: as_array(f"gate {name!r}", x) for name, x in inputs.gates.items()},
        **{name: None if x is None else as_array(name, x) for name, x in given.items()},
        segment_ids=None if ids is None else as_ids("segment_ids", ids),
    )


def as_array(name: str, x: Any) -> Array:
    """Convert x to a jax array; raises `ConfigError` for a string or for rows of two lengths."""
    if isinstance(x, jax.Array):
        return x
    try:
        if x is None:
            raise TypeError
        return jnp.asarray(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{name} is a {type(x).__name__} that makes no array of numbers: give an array."
        ) from error


def as_ids(name: str, x: Any) -> Array:
    """`as_array` of whole numbers that int32 holds."""
    array = as_array(name, x)
    require(
        jnp.issubdtype(array.dtype, jnp.integer),
        f"{name} has dtype {array.dtype}: it must be integer.",
    )
    if not isinstance(x, jax.Array) and array.size:  # of which jax may have kept 32 bits
        wide, bounds = np.asarray(x), np.iinfo(np.int32)
        require(
            bool(bounds.min <= wide.min() and wide.max() <= bounds.max),
            f"{name} lies in [{wide.min()}, {wide.max()}]: it must fit in int32, so number "
            "segments from 0.",
        )
    return array.astype(jnp.int32)


def check_float(name: str, dtype: Any) -> None:
    """Raise `ConfigError` for a dtype that miras does not compute in."""
    require(
        str(jnp.dtype(dtype)) in FLOATS,
        f"{name} has dtype {jnp.dtype(dtype)}: use float32, bfloat16 or float64.",
    )


def check_finite(name: str, x: Array, mask: Array | None = None) -> None:
    """Raise `ConfigError` for NaN or infinity in an array whose values are known.

    Args:
        name: of the array.
        x: [B, T, ...], or any shape without a mask.
        mask: [B, T]; masked tokens may hold anything.
    """
    if isinstance(x, Tracer) or isinstance(mask, Tracer) or not x.is_fully_addressable:
        return
    if all(device.platform == "cpu" for device in x.devices()):
        finite = np.isfinite(np.asarray(x))  # compiles nothing, copies nothing
        if mask is not None:
            finite |= ~np.asarray(mask).reshape(*mask.shape, *[1] * (x.ndim - 2))
        good = finite.all()
    else:
        good = _all_finite(x, mask)
    where = "" if mask is None else " where the mask is True"
    require(bool(good), f"{name} holds NaN or infinity{where}: give finite numbers.")


@jax.jit
def _all_finite(x: Array, mask: Array | None) -> Array:
    finite = jnp.isfinite(x)
    if mask is not None:
        finite |= ~mask.reshape(*mask.shape, *[1] * (x.ndim - 2))
    return jnp.all(finite)
