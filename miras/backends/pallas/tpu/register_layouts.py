"""Layouts of values in a TPU's registers: two of a vector, and two of a matrix.

A register holds 8 rows of 128 lanes. A vector [N] lies along the lanes, as a row [1, N], or down
the rows, as a column [N, 1]; to relayout one into the other costs the compiler, left alone, a
permutation for every few entries. A matrix of few columns leaves most lanes empty, and its
transpose does not. So a value here is made in the layout in which it is asked for, where it can be,
and is transposed once at most. Scalars that come out of vectors stay in registers, as [1, 1].
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from miras.array_typing import Array
from miras.backends.pallas.target import LANES, ROWS

# Entries of the longest vector that is transposed by a mask of N x N rather than by the compiler.
# Chosen on 2026-11-21 by `python -m benchmarks.tpu_schedule` (v5e, jax 0.10.2, libtpu 0.0.42).
WIDEST = 512


class Layouts:
    """A value and its transpose, each made when it is first asked for.

    Args:
        layouts: the two, or functions that make them; None for one that is made by transposing the
            other.
    """

    def __init__(self, layouts: Sequence[Any]):
        self.native = {side for side, layout in enumerate(layouts) if layout is not None}
        self._makers = layouts
        self._made: dict[int, Any] = {}

    def get(self, side: int) -> Any:
        """One of the two."""
        if side not in self._made:
            self._made[side] = self._make(side)
        return self._made[side]

    def has(self, side: int) -> bool:
        """Whether one of the two exists, or can be made without transposing the other."""
        return side in self._made or (side in self.native and not self._made)

    def _make(self, side: int) -> Any:
        if not self.has(side):
            return transposed(self.get(1 - side))
        maker = self._makers[side]
        return maker() if callable(maker) else maker


class RegisterVector(Layouts):
    """A vector [N] as a row [1, N] or a column [N, 1], or a scalar [] as [1, 1].

    Args:
        shape: [N] or [].
        row: [1, N], or a function that makes it.
        column: [N, 1], or a function that makes it.
    """

    def __init__(self, shape: tuple[int, ...], *, row: Any = None, column: Any = None):
        super().__init__((row, column))
        self.shape = shape

    def has(self, side: int) -> bool:
        """As of `Layouts`; a row and a column that are both native are both made: that is cheap."""
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
        """[N] or [], in the compiler's layout."""
        return self.row.reshape(self.shape)  # of a column the compiler would do the relayout

    def as_matrix(self, side: int, shape: tuple[int, int]) -> "RegisterMatrix":
        """The row (0) or the column (1), broadcast to a shape; vectors are cheap to transpose."""

        def broadcast(at: int) -> Array:
            return _broadcast(self.get(at), shape if at == side else shape[::-1])

        layouts = [functools.partial(broadcast, at) for at in (side, 1 - side)]
        return RegisterMatrix(shape, Layouts(layouts))


class RegisterMatrix:
    """A matrix [N, M], by its layouts: the matrix itself and its transpose.

    Args:
        shape: [N, M].
        layouts: the two; shared with the transpose.
        side: which of them this is.
        binary: whether all entries are 0 or 1.
    """

    def __init__(
        self, shape: tuple[int, ...], layouts: Layouts, side: int = 0, binary: bool = False
    ):
        self.shape, self.layouts, self.side, self.binary = shape, layouts, side, binary

    @property
    def transpose(self) -> "RegisterMatrix":
        """[M, N]."""
        return RegisterMatrix(self.shape[::-1], self.layouts, 1 - self.side, self.binary)

    def array(self) -> Array:
        """[N, M]."""
        return self.layouts.get(self.side)


def scalar(x: Array) -> RegisterVector:
    """A scalar in a register, as [1, 1]."""
    return RegisterVector((), row=x, column=x)


def map_vectors(
    function: Callable[..., Array], shape: tuple[int, ...], inputs: list[Any]
) -> RegisterVector:
    """An elementwise function of vectors and scalars, in whichever layout will be asked for."""
    vectors = [x for x in inputs if isinstance(x, RegisterVector)]

    def of(side: int) -> Array:
        size = shape[0] if shape else 1
        form = (1, size) if side == 0 else (size, 1)
        return function(
            *(_broadcast(x.get(side) if isinstance(x, RegisterVector) else x, form) for x in inputs)
        )

    native = functools.reduce(set.__and__, (x.native for x in vectors))
    # No layout that all have: then transpose the inputs, each once, for the layout asked for.
    makers = {side: functools.partial(of, side) for side in native or {0, 1}}
    return RegisterVector(shape, row=makers.get(0), column=makers.get(1))


def map_matrices(
    function: Callable[..., Array], shape: tuple[int, int], inputs: list[Any]
) -> RegisterMatrix:
    """An elementwise function of matrices and scalars, in whichever layout will be asked for."""

    def of(side: int) -> Array:
        return function(*(_side(x, side, shape) for x in inputs))

    matrices = [x for x in inputs if isinstance(x, RegisterMatrix)]
    sides = [s for s in (0, 1) if all(x.layouts.has(x.side ^ s) for x in matrices)] or [0]
    makers = [functools.partial(of, side) if side in sides else None for side in (0, 1)]
    return RegisterMatrix(shape, Layouts(makers))


def _side(x: Any, side: int, shape: tuple[int, int]) -> Array:
    if isinstance(x, RegisterVector):
        return _broadcast(x.row, shape[::-1] if side else shape)
    return x.layouts.get(x.side ^ side) if isinstance(x, RegisterMatrix) else x


def _broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    return x if jnp.shape(x) == shape else jnp.broadcast_to(x, shape)


def registers(shape: tuple[int, ...]) -> int:
    """How many registers a matrix of this shape takes."""
    return -(-shape[0] // ROWS) * -(-shape[1] // LANES)


def transposed(x: Array) -> Array:
    """The transpose."""
    size = x.size
    if 1 not in x.shape or size > WIDEST:
        return x.T
    if size == 1:
        return x
    if x.dtype not in (jnp.float32, jnp.float64):
        back = transposed(x.astype(jnp.float32))
        return back > 0.5 if x.dtype == jnp.bool_ else back.astype(x.dtype)
    i, j = (lax.broadcasted_iota(jnp.int32, (size, size), d) for d in (0, 1))
    return jnp.sum(jnp.where(i == j, x, 0.0), axis=1 if x.shape[0] == 1 else 0, keepdims=True)


def enter(x: Any) -> Any:
    """An array of one or two dimensions by its layouts; others as they are."""
    if isinstance(x, (RegisterVector, RegisterMatrix)):
        return x
    if jnp.ndim(x) == 1:
        return RegisterVector(x.shape, row=lambda: x.reshape(1, -1))
    return RegisterMatrix(x.shape, Layouts((x, None))) if jnp.ndim(x) == 2 else x


def leave(x: Any) -> Any:
    """A value as an array again."""
    return x.array() if isinstance(x, (RegisterVector, RegisterMatrix)) else x
