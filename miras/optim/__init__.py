"""Memory algorithms, the inner optimisers: the last of the four choices.

The outer optimiser, which trains the model's parameters, is optax and lives in `miras.train`.
"""

from miras.optim.adaptive import Adaptive
from miras.optim.base import Algorithm, LeastSquares, register
from miras.optim.coefficients import Coefficients
from miras.optim.dgd import DGD
from miras.optim.gd import GD
from miras.optim.implicit import Implicit
from miras.optim.momentum import Momentum, Nesterov
from miras.optim.multi_step import MultiStep
from miras.optim.muon import Muon
from miras.optim.newton import Newton
from miras.optim.nonparametric import NonParametric
from miras.optim.omega import Omega
from miras.optim.preconditioned import Preconditioned
from miras.optim.two_rate_momentum import TwoRateMomentum

__all__ = [
    "DEFAULT",
    "DGD",
    "GD",
    "Adaptive",
    "Algorithm",
    "Coefficients",
    "Implicit",
    "LeastSquares",
    "Momentum",
    "MultiStep",
    "Muon",
    "Nesterov",
    "Newton",
    "NonParametric",
    "Omega",
    "Preconditioned",
    "TwoRateMomentum",
    "register",
    "unit_steps",
    "without_steps",
]

DEFAULT: Algorithm = GD()


def unit_steps() -> Algorithm:
    """Gradient descent with a constant rate of 1, as a Hebbian sum of outer products takes."""
    return GD(lr=1.0, data_dependent=False)


def without_steps() -> Algorithm:
    """The algorithm of a memory that keeps tokens; see `NonParametric`."""
    return NonParametric()
