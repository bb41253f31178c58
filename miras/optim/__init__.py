"""Memory algorithms, the inner optimisers: the last of the four choices.

The outer optimiser, which trains the model's parameters, is optax and lives in `miras.train`.
"""

from miras.optim.base import Algorithm, register
from miras.optim.coefficients import Coefficients
from miras.optim.gd import GD
from miras.optim.momentum import Momentum

__all__ = ["GD", "Algorithm", "Coefficients", "Momentum", "register"]
