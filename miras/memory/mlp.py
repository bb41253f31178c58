"""MLP memory: the deep memory of TTT, Titans and MIRAS."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from miras.config import require
from miras.gate import Side
from miras.memory.activations import ACTIVATIONS, Activation
from miras.memory.base import Memory, Reader, register
from miras.memory.norms import Norm, normalise
from miras.typing import Array, Weights


@register("mlp")
@dataclasses.dataclass(frozen=True)
class MLP(Memory):
    """M(W, x) = x + norm(act(... act(x @ w1) ...) @ wn).

    w1 is [dk, hidden], wn [hidden, dv], those between [hidden, hidden], hidden = expansion * dk;
    depth 1 is the single matrix w1 [dk, dv]. TTT (2407.04620) section 2.7, Titans (2501.00663)
    section 3.1, MIRAS (2504.13173) section 5.3.

    Attributes:
        depth: number of weight matrices, >= 1.
        expansion: hidden width over dk, where `hidden` is not given.
        hidden: hidden width.
        activation: between the matrices; "gelu" is the tanh form, "gelu_exact" the erf form.
        residual: add x, which needs dk = dv.
        norm: of the output before the residual, without learned parameters unless `affine`.
        affine: a scale and a shift after the norm, trained by the outer loop only (TTT).
        eps: added to the variance (layer) or the mean square (rms).
    """

    depth: int = 2
    expansion: int = 4
    hidden: int | None = None
    activation: Activation = "gelu"
    residual: bool = True
    norm: Norm | None = "layer"
    affine: bool = False
    eps: float = 1e-6

    def validate(self) -> None:
        """Check ranges."""
        require(self.depth >= 1, f"MLP.depth={self.depth} must be at least 1.")
        require(self.expansion >= 1, f"MLP.expansion={self.expansion} must be at least 1.")
        require(
            self.hidden is None or self.hidden >= 1,
            f"MLP.hidden={self.hidden} must be at least 1, or none.",
        )
        require(self.eps > 0, f"MLP.eps={self.eps} must be positive.")
        require(
            not self.affine or self.norm is not None,
            "MLP.affine=True needs a norm: set norm to 'layer' or 'rms'.",
        )

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """Normal weights under which a step of lr 1 answers a unit-norm key about in full.

        With a norm at the end all weights have unit variance: the norm takes out the scale, and
        each layer's tangent kernel is of order one. Without one, layers behind an activation are
        scaled by their fan-in, so that outputs have about unit variance.
        """
        require(
            dk == dv or not self.residual,
            f"an MLP memory with residual=True needs dk = dv, not dk={dk}, dv={dv}.",
        )
        hidden = self.hidden or self.expansion * dk
        widths = [dk] + [hidden] * (self.depth - 1) + [dv]
        keys = jax.random.split(key, self.depth)
        weights = {}
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            # Behind a GELU of a unit normal the mean square is about 0.42.
            std = 1.0 if i == 0 or self.norm is not None else (0.42 * fan_in) ** -0.5
            weights[f"w{i + 1}"] = std * jax.random.normal(keys[i], (fan_in, fan_out), jnp.float32)
        if self.affine:
            weights |= {"scale": jnp.ones(dv, jnp.float32), "shift": jnp.zeros(dv, jnp.float32)}
        return weights

    @property
    def fixed(self) -> tuple[str, ...]:
        """The affine's scale and shift."""
        return ("scale", "shift") if self.affine else ()

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Rows of w1 are key channels, columns of wn value channels."""
        return ("key" if name == "w1" else None, "value" if name == f"w{self.depth}" else None)

    def apply(self, read: Reader, x: Array) -> Array:
        """X + norm(MLP(x))."""
        z = read.linear("w1", x)
        for i in range(2, self.depth + 1):
            z = read.linear(f"w{i}", ACTIVATIONS[self.activation](z))
        z = normalise(z, self.norm, self.eps)
        if self.affine:
            z = z * read.fixed("scale") + read.fixed("shift")
        return x + z if self.residual else z
