"""MLP memory: the deep memory of TTT, Titans and MIRAS."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import added, require
from miras.config.choices import shown
from miras.memory import activations, norms
from miras.memory.activations import ACTIVATIONS, Activation
from miras.memory.base import Memory, Reader, register
from miras.memory.norms import Norm, normalise
from miras.parts.formula import Line, MemoryFormula, wrap
from miras.parts.gate import Side


@register("mlp")
@dataclasses.dataclass(frozen=True)
class MLP(Memory):
    """M(W, x) = x + norm(act(... act(x @ w1 + b1) ...) @ wn + bn).

    w1 is [dk, hidden], wn [hidden, dv], those between [hidden, hidden], hidden = expansion * dk;
    depth 1 is the single matrix w1 [dk, dv]. TTT (2407.04620) section 2.7, Titans (2501.00663)
    section 3.1, MIRAS (2504.13173) section 5.3.

    Attributes:
        depth: number of weight matrices, in [1, 1000].
        expansion: hidden width over dk, where `hidden` is not given.
        hidden: hidden width.
        activation: between the matrices; "gelu" is the tanh form, "gelu_exact" the erf form.
        residual: add x, which needs dk = dv.
        norm: of the output before the residual, without learned parameters unless `affine`.
        affine: a scale and a shift after the norm, trained by the outer loop only (TTT).
        biases: b1 [hidden], ..., bn [dv] after the matrices, which the inner loop writes as it
            does those; their initial values, learned as well, start at 0 (TTT's official code).
            Without it there are none.
        eps: added to the variance (layer) or the mean square (rms).
    """

    depth: int = 2
    expansion: int = 4
    hidden: int | None = None
    activation: Activation = "gelu"
    residual: bool = True
    norm: Norm | None = "layer"
    affine: bool = False
    biases: bool = added(False)
    eps: float = 1e-6

    def validate(self) -> None:
        """Check ranges."""
        require(self.depth >= 1, f"MLP.depth={self.depth} must be at least 1.")
        require(self.depth <= 1000, f"MLP.depth={shown(self.depth)} must be at most 1,000.")
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
        each layer's tangent kernel is of order one. Without one, layers after an activation are
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
            if self.biases:
                weights[f"b{i + 1}"] = jnp.zeros(fan_out, jnp.float32)
        if self.affine:
            weights |= {"scale": jnp.ones(dv, jnp.float32), "shift": jnp.zeros(dv, jnp.float32)}
        return weights

    @property
    def fixed(self) -> tuple[str, ...]:
        """The affine's scale and shift."""
        return ("scale", "shift") if self.affine else ()

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Rows of w1 are key channels, columns of wn and entries of bn value channels."""
        out: Side | None = "value" if name[1:] == str(self.depth) else None
        return (out,) if name.startswith("b") else ("key" if name == "w1" else None, out)

    def apply(self, read: Reader, x: Array) -> Array:
        """x + norm(MLP(x))."""
        z = self._layer(read, 1, x)
        for i in range(2, self.depth + 1):
            z = self._layer(read, i, ACTIVATIONS[self.activation](z))
        z = normalise(z, self.norm, self.eps)
        if self.affine:
            z = z * read.fixed("scale") + read.fixed("shift")
        return x + z if self.residual else z

    def _layer(self, read: Reader, i: int, x: Array) -> Array:
        z = read.linear(f"w{i}", x)
        return read.shift(f"b{i}", z) if self.biases else z

    def formula(self, gates) -> MemoryFormula:
        """The layers, their widths, what stands between and after them."""
        W = [f"W_{i + 1}" for i in range(self.depth)] if self.depth > 1 or self.biases else ["W"]
        layers = [f"{{}} {w} + b_{i}" if self.biases else f"{{}} {w}" for i, w in enumerate(W, 1)]
        act, lines = activations.NAMES[self.activation], []
        z = layers[0].format("x")
        for i, layer in enumerate(layers[1:], 2):
            if self.depth > 3:  # one below the other, as one line would be too long
                lines.append(Line(f"z_{i - 1}", z))
                z = f"z_{i - 1}"
            z = layer.format(f"{act}({z})" if act else wrap(z))
        z = norms.normed(self.norm, z)
        z = rf"s \odot {z} + c" if self.affine else z
        lines.insert(0, Line("M(W, x)", f"x + {z}" if self.residual else z))
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            lines=tuple(lines),
            where=(
                *shapes(W, self.hidden, self.expansion),
                *(_biases(self.depth) if self.biases else ()),
                *(activations.where(self.activation) if self.depth > 1 else ()),
                *norms.where(self.norm, self.eps),
                *((Line("s, c", r"\mathbb{R}^{d_v}", r"\in", _FIXED),) if self.affine else ()),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """TTT, Titans, MIRAS."""
        return (
            "TTT, arXiv 2407.04620, section 2.7",
            "Titans, arXiv 2501.00663, section 3.1",
            "MIRAS, arXiv 2504.13173, section 5.3",
        )


def _biases(depth: int) -> tuple[Line, ...]:
    """The shapes of the biases, which tokens write as they do the matrices."""
    inner = ", ".join(f"b_{i}" for i in range(1, depth))
    last = Line(f"b_{depth}", r"\mathbb{R}^{d_v}", r"\in")
    return (Line(inner, r"\mathbb{R}^h", r"\in"), last) if inner else (last,)


_FIXED = "trained by the outer loop, never written by a token"


def shapes(W: list[str], hidden: int | None, expansion: int) -> tuple[Line, ...]:
    """The shapes of an MLP's matrices, from the names of those from the first to the last layer."""
    if len(W) == 1:
        return (Line(W[0], r"\mathbb{R}^{d_k \times d_v}", r"\in"),)
    width = str(hidden) if hidden else f"{expansion} d_k" if expansion > 1 else "d_k"
    first, *middle, last = W
    found = [Line(first, r"\mathbb{R}^{d_k \times h}", r"\in")]
    if middle:
        found.append(Line(", ".join(middle), r"\mathbb{R}^{h \times h}", r"\in"))
    found.append(Line(last, r"\mathbb{R}^{h \times d_v}", r"\in"))
    return (*found, Line("h", width))
