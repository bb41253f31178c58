"""MLPChain: residual MLPs in a row, each with a period of its outer updates."""

import jax
from flax import nnx

from miras.array_typing import Array
from miras.layers.param import LinearGeneral


class MLPChain(nnx.Module):
    """z_l = z_{l-1} + gelu(z_{l-1} @ up_l) @ down_l from z_0 = x; the result is z_L - x.

    Args:
        width: of the tokens.
        hidden: width of each hidden layer.
        periods: of each level, the tokens of training between two updates of its parameters; their
            metadata `period`, which `miras.train` reads.
        rngs: stream `params`.
    """

    def __init__(self, width: int, hidden: int, periods: tuple[int, ...], rngs: nnx.Rngs):
        self.count = len(periods)
        self.up, self.down = nnx.Dict(), nnx.Dict()
        for n, period in enumerate(periods):
            up = LinearGeneral((width, hidden), ("embed", "mlp"), rngs)
            down = LinearGeneral((hidden, width), ("mlp", "embed"), rngs)
            for layer in (up, down):
                layer.kernel.set_metadata(period=period)
            self.up[f"level{n}"], self.down[f"level{n}"] = up, down

    def __call__(self, x: Array) -> Array:
        """Map x [..., width] to [..., width]."""
        z = x
        for n in range(self.count):
            z = z + self.down[f"level{n}"](jax.nn.gelu(self.up[f"level{n}"](z)))
        return z - x
