"""Retention gates: the third of the four choices."""

from miras.retention.base import Decaying, Retention, register
from miras.retention.bregman import Bregman, Potential, register_potential
from miras.retention.elastic_net import ElasticNet
from miras.retention.f_divergence import FDivergence
from miras.retention.kl import KL
from miras.retention.l2 import L2
from miras.retention.lq import Lq
from miras.retention.none import NoRetention
from miras.retention.projection import Projection, Rows
from miras.retention.trapezoidal import Trapezoidal

__all__ = [
    "DEFAULT",
    "KL",
    "L2",
    "Bregman",
    "Decaying",
    "ElasticNet",
    "FDivergence",
    "Lq",
    "NoRetention",
    "Potential",
    "Projection",
    "Retention",
    "Rows",
    "Trapezoidal",
    "register",
    "register_potential",
]

DEFAULT: Retention = NoRetention()
