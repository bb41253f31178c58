"""Contract tests of members, to be called from any test: one line each, no test framework needed.

    from miras.testing import check_bias

    def test_my_bias():
        check_bias(MyBias())

Each takes a config object and raises `AssertionError`, saying what is broken, if the member does
not keep the contract of its axis, or if the backends disagree about a rule that it is part of.
All in float64 on whatever device jax has. The first in a process compiles for up to a minute, the
others take some seconds each.
"""

from miras.testing.algorithm import check_algorithm
from miras.testing.bias import check_bias
from miras.testing.inputs import random_inputs
from miras.testing.memory import check_memory
from miras.testing.mixer import check_mixer
from miras.testing.retention import check_retention
from miras.testing.rules import check_rule

__all__ = [
    "check_algorithm",
    "check_bias",
    "check_memory",
    "check_mixer",
    "check_retention",
    "check_rule",
    "random_inputs",
]
