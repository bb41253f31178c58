"""Forms: the two in which a TPU's registers can hold a vector, and the two of a matrix.

A register holds 8 rows of 128 lanes. A vector [N] lies along the lanes, as a row [1, N], or down
the rows, as a column [N, 1]; to turn one into the other costs the compiler, left alone, a
permutation for every few entries. A matrix of few columns leaves most lanes empty, and its
transpose does not. So a value here is made in the form in which it is asked for, where it can be,
and is turned once at most. Numbers that come out of vectors stay in registers, as [1, 1].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array

WIDEST = 512  # entries of a vector that is turned by a mask of N x N


class Forms:
    """A value and its transpose, each made when it is first asked for.

    Args:
        forms: the two, or what makes them; None for one that is made by turning the other.
    """

    def __init__(self, forms: Sequence[Any]):
        self.native = {side for side, form in enumerate(forms) if form is not None}
        self._makers = forms
        self._made: dict[int, Any] = {}

    def get(self, side: int) -> Any:
        """One of the two."""
        if side not in self._made:
            self._made[side] = self._make(side)
        return self._made[side]

    def has(self, side: int) -> bool:
        """Whether one of the two is there, or can be made without turning the other."""
        return side in self._made or (side in self.native and not self._made)

    def _make(self, side: int) -> Any:
        if not self.has(side):
            return turned(self.get(1 - side))
        maker = self._makers[side]
        return maker() if callable(maker) else maker


class Vector(Forms):
    """A vector [N] as a row [1, N] or a column [N, 1], or a number [] as [1, 1].

    Args:
        shape: [N] or [].
        row: [1, N], or what makes it.
        column: [N, 1], or what makes it.
    """

    def __init__(self, shape: tuple[int, ...], *, row: Any = None, column: Any = None):
        super().__init__((row, column))
        self.shape = shape

    def has(self, side: int) -> bool:
        """As of a value; a row and a column that are both native are both made: that is cheap."""
        return side in self.native or side in self._made

    @property
    def row(self) -> Array:
        """[1, N]."""
        return self.get(0)

    @property
    def column(self) -> Array:
        """[N, 1]."""
        return self.get(1)

    def array(self) -> Array:
        """[N] or [], as the compiler would have it."""
        return self.row.reshape(self.shape)  # a column would have to be turned by the compiler

    def as_matrix(self, side: int, shape: tuple[int, int]) -> "Matrix":
        """The row (0) or the column (1), repeated to fill a shape; a vector is cheap to turn."""

        def filled(at: int) -> Array:
            return _filled(self.get(at), shape if at == side else shape[::-1])

        forms = [functools.partial(filled, at) for at in (side, 1 - side)]
        return Matrix(shape, Forms(forms))


class Matrix:
    """A matrix [N, M], by its forms: the matrix itself and its transpose.

    Args:
        shape: [N, M].
        forms: the two; shared with the transpose.
        side: which of them this is.
        binary: whether all entries are 0 or 1.
    """

    def __init__(self, shape: tuple[int, ...], forms: Forms, side: int = 0, binary: bool = False):
        self.shape, self.forms, self.side, self.binary = shape, forms, side, binary

    @property
    def transpose(self) -> "Matrix":
        """[M, N]."""
        return Matrix(self.shape[::-1], self.forms, 1 - self.side, self.binary)

    def array(self) -> Array:
        """[N, M]."""
        return self.forms.get(self.side)


def number(x: Array) -> Vector:
    """A number held as [1, 1]."""
    return Vector((), row=x, column=x)


def vectorwise(bind: Callable[..., Array], shape: tuple[int, ...], inputs: list[Any]) -> Vector:
    """Bind of vectors and numbers, in whichever form will be asked for."""
    vectors = [x for x in inputs if isinstance(x, Vector)]

    def of(side: int) -> Array:
        size = shape[0] if shape else 1
        form = (1, size) if side == 0 else (size, 1)
        return bind(*(_filled(x.get(side) if isinstance(x, Vector) else x, form) for x in inputs))

    native = functools.reduce(set.__and__, (x.native for x in vectors))
    # In neither form without a turn: then turn the inputs, each once, for the form asked for.
    forms = {side: functools.partial(of, side) for side in native or {0, 1}}
    return Vector(shape, row=forms.get(0), column=forms.get(1))


def matrixwise(bind: Callable[..., Array], shape: tuple[int, int], inputs: list[Any]) -> Matrix:
    """Bind of matrices and numbers, in whichever form will be asked for."""

    def of(side: int) -> Array:
        return bind(*(_side(x, side, shape) for x in inputs))

    matrices = [x for x in inputs if isinstance(x, Matrix)]
    sides = [side for side in (0, 1) if all(x.forms.has(x.side ^ side) for x in matrices)] or [0]
    forms = [functools.partial(of, side) if side in sides else None for side in (0, 1)]
    return Matrix(shape, Forms(forms))


def _side(x: Any, side: int, shape: tuple[int, int]) -> Array:
    if isinstance(x, Vector):
        return _filled(x.row, shape[::-1] if side else shape)
    return x.forms.get(x.side ^ side) if isinstance(x, Matrix) else x


def _filled(x: Array, shape: tuple[int, ...]) -> Array:
    return x if jnp.shape(x) == shape else jnp.broadcast_to(x, shape)


def registers(shape: tuple[int, ...]) -> int:
    """How many a matrix of this shape takes."""
    return -(-shape[0] // 8) * -(-shape[1] // 128)


def turned(x: Array) -> Array:
    """The transpose."""
    size = x.size
    if 1 not in x.shape or size > WIDEST:
        return x.T
    if size == 1:
        return x
    if x.dtype not in (jnp.float32, jnp.float64):
        back = turned(x.astype(jnp.float32))
        return back > 0.5 if x.dtype == jnp.bool_ else back.astype(x.dtype)
    i, j = (lax.broadcasted_iota(jnp.int32, (size, size), d) for d in (0, 1))
    return jnp.sum(jnp.where(i == j, x, 0.0), axis=1 if x.shape[0] == 1 else 0, keepdims=True)


def enter(x: Any) -> Any:
    """An array of one or two dimensions by its forms; others as they are."""
    if isinstance(x, (Vector, Matrix)):
        return x
    if jnp.ndim(x) == 1:
        return Vector(x.shape, row=lambda: x.reshape(1, -1))
    return Matrix(x.shape, Forms((x, None))) if jnp.ndim(x) == 2 else x


def leave(x: Any) -> Any:
    """A value as an array again."""
    return x.array() if isinstance(x, (Vector, Matrix)) else x
