"""KL retention: Memora's weights on a scaled simplex."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from miras.config import require
from miras.retention.base import Decaying, LinkEvery, register
from miras.typing import Leaf


@register("kl")
@dataclasses.dataclass(frozen=True)
class KL(Decaying):
    """W_t = c softmax(alpha_t log W_{t-1} - eta_t g_t). MIRAS (2504.13173), equation 21.

    In the dual space A = log W (up to a shift per slice, which the softmax ignores) this is
    A_t = alpha_t A_{t-1} + S_t, W_t = c softmax(A_t), so that no logarithm is taken on the way. The
    paper's training form, `link_every="chunk"`, has Memora's lag token: the first token of a chunk
    takes the true step, the rest follow the linear recursion from there.

    Attributes:
        scale: c, the sum of each slice; > 0.
        axis: of a slice: 0 is `in`, 1 is `out`; a vector weight has one axis.
        link_every: see `Retention`.
    """

    lag: ClassVar[bool] = True

    scale: float = 1.0
    axis: Literal[0, 1] = 0
    link_every: LinkEvery = "token"

    def validate(self) -> None:
        """Check ranges."""
        super().validate()
        require(self.scale > 0, f"KL.scale={self.scale} must be positive.")

    @property
    def linked(self) -> LinkEvery:
        """`link_every`."""
        return self.link_every

    def link(self, A: Leaf) -> Leaf:
        """C softmax(A) along the axis."""
        return self.scale * jax.nn.softmax(A, axis=min(self.axis, A.ndim - 1))

    def unlink(self, W: Leaf) -> Leaf:
        """Log W."""
        return jnp.log(jnp.maximum(W, jnp.finfo(W.dtype).tiny))

    def constrain(self, W: Leaf) -> Leaf:
        """Any array as the logits of a weight on the simplex."""
        return self.link(W)
