"""Compressed slots: keys and values fitted to one code of slots, in two passes."""

import dataclasses

import jax
import jax.numpy as jnp

from miras.array_typing import Array, Weights
from miras.config import require
from miras.memory import activations, norms
from miras.memory.activations import ACTIVATIONS, Activation
from miras.memory.base import Fit, Memory, Reader, register
from miras.memory.norms import Norm, normalise
from miras.parts.formula import Line, MemoryFormula
from miras.parts.gate import Gate, Side


@register("compressed_slots")
@dataclasses.dataclass(frozen=True)
class CompressedSlots(Memory):
    """M(W, x) = phi(x @ w1) @ w2 with phi(z) = norm(act(z)): w1 [dk, count], w2 [count, dv].

    Trellis (2512.23852). A token fits two maps onto the slots, of its key and of its value, to one
    code a_t [count], the gate `target`:

        loss_t = loss(phi(k_t w1), a_t) + loss(phi(v_t w2^T), a_t)

    Under the l2 bias, gd and l2 retention, with J the Jacobian of phi and both gradients at the
    weights before the token (or before the chunk),

        w1_t = beta_t w1_{t-1} - gamma_t k_t^T u_t      u_t = (phi(z) - a_t) J(z), z = k_t w1_{t-1}
        w2_t = beta_t w2_{t-1} - gamma_t u'_t^T v_t     u'_t likewise, z = v_t w2_{t-1}^T
        r_t = phi(q_t w1_t),  y_t = r_t w2_t

    A query that is like a key so answers with the values of the tokens whose codes are like that
    key's. Both passes share the rate gamma and the decay beta; neither depends on the other.

    The errors u_t depend on the weights through phi and J, so the update is not affine in the
    weights: a chunk has no closed form, and takes its gradients at its start (`chunk=1` is the
    recurrence, to which `refine` comes closer).

    Published descriptions differ in what phi is where the memory is written: with
    `linear_writes` it is the identity there, which makes both passes delta rules, and stands in the
    read alone (the paper's ablation). These are affine: `exact=True` solves a system for each pass.
    They also differ in whether phi is applied to y_t as well; it is not here.

    Attributes:
        count: slots, >= 1.
        activation: act.
        norm: over the slots, without learned parameters; None for none.
        linear_writes: see above.
        eps: added to the variance (layer) or the mean square (rms). Forgetting shrinks the weights
            and a norm undoes that, with a gain of at most 1 / sqrt(eps).
    """

    count: int = 16
    activation: Activation = "silu"
    norm: Norm | None = "layer"
    linear_writes: bool = False
    eps: float = 1e-6

    def validate(self) -> None:
        """Check ranges."""
        require(self.count >= 1, f"CompressedSlots.count={self.count} must be at least 1.")
        require(self.eps > 0, f"CompressedSlots.eps={self.eps} must be positive.")

    def init(self, key: jax.Array, dk: int, dv: int) -> Weights:
        """Unit variance: the norm takes out the scale of a pass, and its step is of order one."""
        of_keys, of_values = jax.random.split(key)
        return {
            "w1": jax.random.normal(of_keys, (dk, self.count), jnp.float32),
            "w2": jax.random.normal(of_values, (self.count, dv), jnp.float32),
        }

    def sides(self, name: str) -> tuple[Side | None, ...]:
        """Both have a dimension of slots."""
        return ("key", "slot") if name == "w1" else ("slot", "value")

    @property
    def slots(self) -> int:
        """`count`."""
        return self.count

    def gates(self) -> tuple[Gate, ...]:
        """The code a_t of a token, 0 where it is not given."""
        return (Gate("target", 0.0, "real", True, side="slot", symbol="a", drawn=True),)

    @property
    def fits_linearly(self) -> bool:
        """`linear_writes`."""
        return self.linear_writes

    def apply(self, read: Reader, x: Array) -> Array:
        """phi(x @ w1) @ w2."""
        return read.linear("w2", self._phi(read.linear("w1", x)))

    def fits(self, read: Reader, k: Array, v: Array) -> tuple[Fit, ...]:
        """The key's slots and the value's, both against the code."""
        phi = (lambda z: z) if self.linear_writes else self._phi
        code = read.gate("target").astype(k.dtype)
        passes = phi(read.linear("w1", k)), phi(read.transposed("w2", v))
        return tuple(Fit(pred, code) for pred in passes)

    def _phi(self, z: Array) -> Array:
        return normalise(ACTIVATIONS[self.activation](z), self.norm, self.eps)

    def formula(self, gates) -> MemoryFormula:
        """The read, and the two passes."""
        act = activations.NAMES[self.activation]
        phi = norms.normed(self.norm, f"{act}(z)" if act else "z")
        mapped = "{}" if self.linear_writes else r"\phi({})"
        code = gates["target"]
        return MemoryFormula(
            answer=lambda W, x: f"M({W}, {x})",
            fits=lambda W, k, v: ((f"K({W}, {k})", code), (f"V({W}, {v})", code)),
            lines=(
                Line("K(W, x)", mapped.format("x W_1")),
                Line("V(W, x)", mapped.format(r"x W_2^\top")),
                Line("M(W, x)", r"\phi(x W_1) W_2"),
            ),
            where=(
                Line(r"\phi(z)", phi),
                *activations.where(self.activation),
                *norms.where(self.norm, self.eps),
                Line("W_1", rf"\mathbb{{R}}^{{d_k \times {self.count}}}", r"\in"),
                Line("W_2", rf"\mathbb{{R}}^{{{self.count} \times d_v}}", r"\in"),
            ),
        )

    def sources(self) -> tuple[str, ...]:
        """Trellis."""
        return ("Trellis, arXiv 2512.23852",)
