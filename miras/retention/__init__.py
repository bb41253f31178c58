"""Retention gates: the third of the four choices."""

from miras.retention.base import Decaying, Retention, register
from miras.retention.kl import KL
from miras.retention.l2 import L2
from miras.retention.lq import Lq
from miras.retention.none import NoRetention

__all__ = ["KL", "L2", "Decaying", "Lq", "NoRetention", "Retention", "register"]
