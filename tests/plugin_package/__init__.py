"""A package of users' parts, one on each axis, none of which miras has: each with its own gates."""

from tests.plugin_package.algorithm import QuasiHyperbolic
from tests.plugin_package.bias import Asymmetric
from tests.plugin_package.memory import Gated
from tests.plugin_package.mixer import DecayingMean
from tests.plugin_package.retention import Leaky

__all__ = ["Asymmetric", "DecayingMean", "Gated", "Leaky", "QuasiHyperbolic"]
