"""Forms: the two in which a TPU's registers hold a vector, and the two of a matrix.

A register holds 8 rows of 128 lanes. A vector [N] lies along the lanes, as a row [1, N], or down
the rows, as a column [N, 1]; to turn one into the other costs the compiler, left alone, a
permutation for every few entries. Here a vector is made in the form in which it is asked for,
its turned form once at most, and numbers that come out of vectors stay in registers, as [1, 1].
Likewise a transposed matrix is turned only where its use is no product.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from miras.typing import Array

WIDEST = 512  # entries of a vector that is turned by a mask of N x N


class Vector:
    """A vector [N] or a number [], in forms made when they are first asked for.

    Args:
        shape: [N] or [].
        row: [1, N], or what makes it.
        column: [N, 1], or what makes it.
    """

    def __init__(self, shape: tuple[int, ...], *, row: Any = None, column: Any = None):
        self.shape = shape
        self._forms = {0: row, 1: column}
        self.native = {axis for axis, form in self._forms.items() if form is not None}

    @property
    def row(self) -> Array:
        """[1, N]."""
        return self.along(0)

    @property
    def column(self) -> Array:
        """[N, 1]."""
        return self.along(1)

    def along(self, axis: int) -> Array:
        """The row or the column: `axis` is the dimension that has one entry."""
        form = self._forms[axis]
        if form is None:
            form = turned(self.along(1 - axis), axis)
        elif callable(form):
            form = form()
        self._forms[axis] = form
        return form

    def array(self) -> Array:
        """[N] or [], as the compiler would have it."""
        return self.along(min(self.native)).reshape(self.shape)


def number(x: Array) -> Vector:
    """A number held as [1, 1]."""
    return Vector((), row=x, column=x)


class Matrix:
    """A matrix and its transpose, each made when it is first asked for.

    Args:
        forms: the matrix and its transpose, or what makes them, or None; shared by both.
        side: which of them this is.
    """

    def __init__(self, forms: list[Any], side: int = 0):
        self._forms, self._side = forms, side

    @property
    def array(self) -> Array:
        """[N, M]."""
        form = self._forms[self._side]
        if form is None:
            form = self.transpose.array.T
        elif callable(form):
            form = form()
        self._forms[self._side] = form
        return form

    @property
    def transpose(self) -> "Matrix":
        """[M, N]."""
        return Matrix(self._forms, 1 - self._side)

    @property
    def native(self) -> bool:
        """Whether nothing has to be turned for it."""
        return self._forms[self._side] is not None


def elementwise(bind: Callable[..., Array], shape: tuple[int, ...], inputs: list[Any]) -> Vector:
    """Bind of vectors and numbers, in whichever form will be asked for."""
    vectors = [x for x in inputs if isinstance(x, Vector)]

    def of(axis: int) -> Array:
        size = shape[0] if shape else 1
        form = (1, size) if axis == 0 else (size, 1)
        return bind(
            *(jnp.broadcast_to(x.along(axis), form) if isinstance(x, Vector) else x for x in inputs)
        )

    native = functools.reduce(set.__and__, (x.native for x in vectors), {0, 1})
    # In neither form without a turn: then turn the inputs, each once, for the form asked for.
    forms = {axis: functools.partial(of, axis) for axis in native or {0, 1}}
    return Vector(shape, row=forms.get(0), column=forms.get(1))


def turned(x: Array, axis: int) -> Array:
    """A row as a column (axis 1) or a column as a row (axis 0)."""
    size = x.size
    if size == 1:
        return x
    if size > WIDEST:
        return x.reshape((1, size) if axis == 0 else (size, 1))
    if x.dtype not in (jnp.float32, jnp.float64):
        back = turned(x.astype(jnp.float32), axis)
        return back > 0.5 if x.dtype == jnp.bool_ else back.astype(x.dtype)
    i, j = (lax.broadcasted_iota(jnp.int32, (size, size), d) for d in (0, 1))
    return jnp.sum(jnp.where(i == j, x, 0.0), axis=axis, keepdims=True)


def enter(x: Any) -> Any:
    """A value of one dimension as a vector; others as they are."""
    if isinstance(x, (Vector, Matrix)) or jnp.ndim(x) != 1:
        return x
    return Vector(x.shape, row=lambda: x.reshape(1, -1))


def leave(x: Any) -> Any:
    """A value as an array again."""
    if isinstance(x, Vector):
        return x.array()
    return x.array if isinstance(x, Matrix) else x
