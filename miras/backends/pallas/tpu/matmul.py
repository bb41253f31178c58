"""Products of two matrices on the matrix units: of bfloat16 numbers, summed in float32."""

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array
from miras.backends.pallas.interpreter import interpreting


def matmul(
    x: Array, y: Array, over: tuple[int, int], precision: Any, binary: tuple[bool, bool], dtype: Any
) -> Array:
    """A product of matrices; one of a single row or column is padded with zeros first.

    Args:
        x: a matrix.
        y: a matrix.
        over: the dimensions of each that are summed over.
        precision: None for operands rounded to bfloat16, as XLA has it on TPUs.
        binary: whether all entries of x, and of y, are 0 or 1.
        dtype: of the result.
    """
    i, j = over
    rows, columns = x.shape[1 - i], y.shape[1 - j]
    if x.shape[i] == 1 and over == (1, 0):
        return (x.astype(dtype) * y).astype(dtype)
    x, y = _padded(_padded(x, i), 1 - i), _padded(_padded(y, j), 1 - j)
    dot = functools.partial(lax.dot_general, dimension_numbers=(((i,), (j,)), ((), ())))
    wide: Any = functools.partial(dot, preferred_element_type=jnp.float32)
    if interpreting():
        z = dot(x, y, preferred_element_type=dtype)
    elif precision is not None and any(binary):
        z = functools.reduce(jnp.add, (wide(*pair) for pair in _bfloat16_parts(x, y, binary)))
    elif precision is not None:
        z = wide(x, y, precision=precision)
    else:
        z = wide(_bfloat16(x), _bfloat16(y))
    z = z if z.shape == (rows, columns) else lax.slice(z, (0, 0), (rows, columns))
    return z.astype(dtype)


def _bfloat16(x: Array) -> Array:
    return x.astype(jnp.bfloat16)


def _bfloat16_parts(x: Array, y: Array, binary: tuple[bool, bool]):
    """Pairs of bfloat16 operands whose products sum to x y: 0 and 1 are in that dtype as they are.

    Three of 8 bits each make up a float32.
    """
    whole = y if binary[0] else x
    for _ in range(3):
        part = _bfloat16(whole)
        yield (_bfloat16(x), part) if binary[0] else (part, _bfloat16(y))
        whole = whole - part.astype(jnp.float32)


def _padded(x: Array, axis: int) -> Array:
    """A dimension of one entry as one of 8, with zeros: the matrix units take no less."""
    if x.shape[axis] != 1:
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 7 * (a == axis), 0) for a in range(x.ndim)])
