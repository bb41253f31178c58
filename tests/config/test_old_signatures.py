"""Parts written for version 0.1: as their plugins in run folders are."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.bias import Bias
from miras.config import plugins
from miras.optim import GD, Momentum
from miras.optim.coefficients import Coefficients, products
from miras.parts.gate import Gate
from miras.retention import Retention
from miras.testing import random_inputs
from miras.testing.expect import expect_close

RETENTION = """
import dataclasses
import miras
from miras.gate import Gate

@miras.retention.register("halving_of_{name}")
@dataclasses.dataclass(frozen=True)
class Halving(miras.retention.Retention):
    def gates(self):
        return (Gate("log_decay", 0.5, "log_unit", False),)
"""


@dataclasses.dataclass(frozen=True)
class OldHuber(Bias):
    kind = "old_huber"

    def gates(self):
        return (Gate("threshold", 1.0, "positive", False),)

    def loss(self, pred, target, threshold):
        error = pred - target
        size = jnp.abs(error)
        narrow = 0.5 * error**2
        wide = threshold[:, None] * (size - 0.5 * threshold[:, None])
        return jnp.sum(jnp.where(size < threshold[:, None], narrow, wide), axis=-1)


@dataclasses.dataclass(frozen=True)
class NewHuber(OldHuber):
    def loss(self, pred, target, gates):
        return OldHuber.loss.__wrapped__(self, pred, target, gates["threshold"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class OldMomentum(Momentum):
    kind = "old_momentum"

    def step(self, S, V, G, momentum, rate):
        S = momentum * S - rate * G
        return S, None, S

    def coefficients(self, log_decay, log_momentum, rate, write, band):
        assert rate is None
        La, beta = products(log_decay, write.shape[0], write.dtype)
        Lm, m = products(log_momentum, write.shape[0], write.dtype)
        return Coefficients(La @ (write[:, None] * Lm), beta, La @ (write * m), Lm, m)


def values(rule, backend="xla"):
    inputs = random_inputs(rule, T=9, dk=3)
    return miras.scan(rule, *inputs, chunk=4, backend=backend)[0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("backend", ["xla", "reference"])
def test_old_methods_give_what_new_ones_give(backend):
    old = miras.Rule("matrix", OldHuber(), "l2", OldMomentum())
    new = miras.Rule("matrix", NewHuber(), "l2", Momentum())
    expect_close(values(old, backend), values(new, backend), "old methods")


def test_an_old_method_that_calls_super_is_one_sentence():
    with pytest.raises(
        miras.ConfigError, match=r"step\(S, V, G, momentum, rate\) .* step\(S, V, G, g"
    ):

        class Damped(Momentum):
            def step(self, S, V, G, momentum, rate):
                return super().step(S, V, 0.5 * G, momentum, rate)


@pytest.mark.usefixtures("float64")
def test_a_plugins_gates_have_the_roles_of_their_names(tmp_path):
    plugin = tmp_path / "halving.py"
    plugin.write_text(RETENTION.format(name=tmp_path.name.replace("-", "_")))
    plugins.load(plugin)
    kind = f"halving_of_{tmp_path.name.replace('-', '_')}"
    old = miras.Rule("matrix", "l2", kind, GD())
    decay = {"kind": "l2", "decay": 0.5, "data_dependent": False}
    new = miras.Rule("matrix", "l2", decay, GD())
    W0, q, k, v, gates = random_inputs(new, T=9, dk=3)
    gates = {name: x for name, x in gates.items() if name == "lr"}
    want, _ = miras.scan(new, W0, q, k, v, gates, chunk=4)
    got, _ = miras.scan(old, W0, q, k, v, gates, chunk=4)
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_decay_without_its_role_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Silent(Retention):
        kind = "silent"

        def gates(self):
            return (Gate("log_decay", 0.5, "log_unit", False),)

    with pytest.raises(miras.ConfigError, match="with which nothing decays: use role='decay'"):
        miras.Rule("matrix", "l2", Silent(), "gd")
