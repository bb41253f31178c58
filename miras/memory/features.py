"""Feature maps: another memory after a fixed or learned map of its keys and queries."""

import dataclasses
import itertools
import math
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import require
from miras.memory.base import Memory, Reader, register
from miras.memory.matrix import Matrix
from miras.parts.formula import Line, MemoryFormula
from miras.parts.gate import Gate, Side

Map = Literal["elu", "relu2", "polynomial", "taylor"]


@register("features")
@dataclasses.dataclass(frozen=True)
class Features(Memory):
    """M(W, x) = inner(W, phi(x)).

    phi, by `map`:

    - "elu": elu(x) + 1, linear attention's (2006.16236);
    - "relu2": relu(x)^2, element by element;
    - "polynomial": all monomials of the degrees 0 to p, Atlas (2505.23735), section 3.1; a matrix
      then tells apart O(dk^p) keys instead of dk;
    - "taylor": [c_0, c_1 x, c_2 x (x) x, ...], x (x) x all products of two entries, so that
      phi(q).phi(k) = sum_i c_i^2 (q.k)^i. c_i^2 starts at 1/i!, the series of exp(q.k), and the
      outer loop trains c, the fixed weight "taylor" [p + 1]; Atlas, equation 14.

    Attributes:
        inner: the memory after the map.
        map: phi.
        degree: p of "polynomial" and "taylor", in [1, 4]; widths grow as dk^p.
    """

    inner: Memory = Matrix()
    map: Map = "taylor"
    degree: int = 2

    def validate(self) -> None:
        """Check ranges and the memory inside."""
        require(1 <= self.degree <= 4, f"Features.degree={self.degree} must be in [1, 4].")
        require(
            not isinstance(self.inner, Features) and not self.inner.keeps_tokens,
            f"a features memory cannot hold {self.inner.kind!r}: "
            "use matrix, mlp, gated_mlp or slots.",
        )

    def width(self, dk: int) -> int:
        """The width of phi(x)."""
        if self.map == "polynomial":
            return math.comb(dk + self.degree, self.degree)
        if self.map == "taylor":
            return sum(dk**i for i in range(self.degree + 1))
        return dk

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """The inner memory's weights at the width of phi, and the Taylor coefficients."""
        weights = self.inner.init(key, self.width(dk), dv)
        if self.map == "taylor":
            start = [math.factorial(i) ** -0.5 for i in range(self.degree + 1)]
            weights = {**weights, "taylor": jnp.asarray(start, jnp.float32)}
        return weights

    @property
    def fixed(self) -> tuple[str, ...]:
        """Those of the inner memory, and the Taylor coefficients."""
        return (*self.inner.fixed, "taylor") if self.map == "taylor" else self.inner.fixed

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """The inner memory's, where phi leaves the channels as they are."""
        if self.map in ("elu", "relu2"):
            return self.inner.sides(name)
        return tuple(None if side == "key" else side for side in self.inner.sides(name))

    @property
    def slots(self) -> int | None:
        """Those of the inner memory."""
        return self.inner.slots

    def gates(self) -> tuple[Gate, ...]:
        """Those that the inner memory reads; associations are not made after a map."""
        return () if self.inner.associates else self.inner.gates()

    @property
    def is_linear(self) -> bool:
        """Where the inner memory is."""
        return self.inner.is_linear

    def features(self, read: Reader, x: Array) -> Array:
        """phi(x): [C, dk] to [C, width]."""
        if self.map == "elu":
            return jax.nn.elu(x) + 1
        if self.map == "relu2":
            return jnp.square(jax.nn.relu(x))
        if self.map == "polynomial":
            return self._monomials(x)
        c = read.fixed("taylor")
        power, parts = jnp.ones_like(x[:, :1]), []
        for i in range(self.degree + 1):
            parts.append(c[i] * power)
            power = (power[:, :, None] * x[:, None, :]).reshape(x.shape[0], -1)
        return jnp.concatenate(parts, axis=1)

    def _monomials(self, x: Array) -> Array:
        """Each product of up to p entries once."""
        width = x.shape[1]
        parts = [jnp.ones_like(x[:, :1])]
        for degree in range(1, self.degree + 1):
            chosen = list(itertools.combinations_with_replacement(range(width), degree))
            product = jnp.ones_like(x[:, :1])
            for place in range(degree):
                product = product * x[:, jnp.asarray([c[place] for c in chosen])]
            parts.append(product)
        return jnp.concatenate(parts, axis=1)

    def apply(self, read: Reader, x: Array) -> Array:
        """inner(phi(x))."""
        return self.inner.apply(read, self.features(read, x))

    def formula(self, gates) -> MemoryFormula | None:
        """The inner memory's, at phi(x)."""
        inner = self.inner.formula(gates)
        if inner is None:
            return None
        phi = lambda x: rf"\phi({x})"  # noqa: E731
        gradient = inner.gradient
        return inner._replace(
            answer=lambda W, x: inner.answer(W, phi(x)),
            gradient=None if gradient is None else lambda x, e: gradient(phi(x), e),
            feature=phi,
            writes=None,
            where=(*self._maps(), *inner.where),
        )

    def _maps(self) -> tuple[Line, ...]:
        p, phi = self.degree, r"\phi(x)"
        if self.map == "elu":
            return (Line(phi, r"\mathrm{ELU}(x) + 1"),)
        if self.map == "relu2":
            return (Line(phi, r"\mathrm{ReLU}(x)^2", when="element by element"),)
        if self.map == "polynomial":
            products = ["1", "x_i", "x_i x_j", "x_i x_j x_l", "x_i x_j x_l x_m"][: p + 1]
            when = f"each product of up to {p} entries of x once; its width takes the place of d_k"
            return (Line(phi, f"[{', '.join(products)}]", when=when),)
        terms = ["c_0", "c_1 x", r"c_2 x \otimes x", r"c_3 x \otimes x \otimes x"]
        terms.append(r"c_4 x \otimes x \otimes x \otimes x")
        told = "c trained by the outer loop; at the start the series of exp(q.k)"
        return (
            Line(phi, f"[{', '.join(terms[: p + 1])}]", when="its width takes the place of d_k"),
            Line("c_i", r"(i!)^{-1/2}", when=told),
        )

    def sources(self) -> tuple[str, ...]:
        """Of the map, and the inner memory's."""
        papers = {
            "elu": ("linear attention, arXiv 2006.16236, eq. 7",),
            "relu2": (),
            "polynomial": ("Atlas, arXiv 2505.23735, section 3.1",),
            "taylor": ("Atlas, arXiv 2505.23735, eq. 14",),
        }
        return (*papers[self.map], *self.inner.sources())
