"""Attentional biases: the second of the four choices."""

from miras.bias.base import Bias, register
from miras.bias.dot import Dot
from miras.bias.gated_l2 import GatedL2
from miras.bias.huber import Huber
from miras.bias.l2 import L2, L2Loss
from miras.bias.lp import L1, Lp
from miras.bias.robust import Robust

__all__ = [
    "DEFAULT",
    "L1",
    "L2",
    "Bias",
    "Dot",
    "GatedL2",
    "Huber",
    "L2Loss",
    "Lp",
    "Robust",
    "register",
    "similarity",
]

DEFAULT: Bias = L2Loss()


def similarity() -> Bias:
    """The bias that maximises <M(k), v>, of Hebbian writes; see `Dot`."""
    return Dot()
