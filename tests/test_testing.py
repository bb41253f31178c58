"""Contract checks: every built-in member passes, and one that breaks a promise is told which."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras import testing
from miras.parts.gate import Gate
from miras.testing import rules as checked_rules
from tests import selection
from tests.contract.space import REGISTRIES, VARIANTS, kinds

MEMBERS = [
    (axis, {"kind": kind, **options})
    for axis in REGISTRIES
    for kind in kinds(axis)
    for options in VARIANTS[axis].get(kind, [{}])
]
SMOOTHED = (miras.bias.L1, miras.bias.Lp)  # below p = 2 the residual smooths the loss's gradient
BASES = {
    "memory": miras.memory.Matrix,
    "bias": miras.bias.L2Loss,
    "retention": miras.retention.L2,
    "algorithm": miras.optim.Momentum,
}


def check(axis: str, member, **options) -> None:
    getattr(testing, f"check_{axis}")(member, **options)


def name(x) -> str:
    return x if isinstance(x, str) else "-".join(map(str, x.values()))


# One case of every member; `make exhaustive` runs the members with other options.
NAMED = {f"{axis}-{name(spec)}": (axis, spec) for axis, spec in MEMBERS}
SAMPLE = selection.covering({n: [(axis, spec["kind"])] for n, (axis, spec) in NAMED.items()})


@pytest.mark.parametrize(("axis", "spec"), selection.sampled_values(NAMED, SAMPLE))
def test_every_member_keeps_its_contract(axis, spec):
    """But for the agreement of backends, to which tests/contract holds far more rules."""
    member = REGISTRIES[axis].build(spec)
    options = {"is_gradient": False} if isinstance(member, SMOOTHED) else {}
    check(axis, member, rules=0, **options)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["algorithm", pytest.param("bias", marks=pytest.mark.exhaustive)])
def test_the_whole_check(axis):
    """The other axes take the same way."""
    check(axis, BASES[axis](), rules=1)


def apply_twice(self, read, x):
    return read.linear("w1", x) + read.linear("w1", x)


def init_at_random(self, key, dk, dv):
    return {"w1": jnp.asarray(np.random.default_rng().normal(size=(dk, dv)), jnp.float32)}


def residual(change):
    return {"slope": None, "residual": lambda self, p, v, d: change(p - v)}


def loss(make):
    return {
        "slope": None,
        "loss": lambda self, p, v, d: make(p - v),
        "residual": miras.bias.Bias.residual,
    }


def as_momentum(change):
    def step(self, S, V, G, gates):
        S = jnp.exp(gates["log_momentum"]) * S - G
        return change(S, G)

    return {"step": step}


def other_coefficients(self, log_decay, gates, write, band):
    of = miras.optim.Momentum.coefficients(self, log_decay, gates, write, band)
    return of._replace(c=2 * of.c)


BROKEN = {
    "no_docstring": ("bias", {"__doc__": None}, "has no docstring"),
    "gates_in_a_list": ("bias", {"gates": lambda self: []}, "is no tuple"),
    "gate_of_no_range": (
        "bias",
        {"gates": lambda self: (Gate("threshold", 1.0, "wide", False),)},  # pyright: ignore
        "none of",
    ),
    "gate_twice": (
        "retention",
        {"gates": lambda self: 2 * miras.retention.L2().gates()},
        "declares a gate twice",
    ),
    "gate_of_another_axis": (
        "bias",
        {"gates": lambda self: (Gate("log_decay", 0.9, "log_unit", False, role="decay"),)},
        "gates with roles",
    ),
    "loss_per_coordinate": ("bias", loss(lambda r: 0.5 * r * r), "one number a token"),
    "loss_sees_other_tokens": (
        "bias",
        loss(lambda r: jnp.sum((r - jnp.mean(r, axis=0)) ** 2, axis=-1)),
        "depends on other tokens",
    ),
    "residual_of_another_loss": ("bias", residual(lambda r: 2 * r), "not d loss / d pred"),
    "slope_untrue": ("bias", {"slope": 0.0}, "as `slope` says"),
    "gradient_infinite": (
        "bias",
        loss(lambda r: jnp.sqrt(jnp.sum(r * r, axis=-1))),
        "holds NaN or infinity",
    ),
    "loss_that_never_falls": (
        "bias",
        {"slope": None, "loss": lambda self, p, v, d: 0 * jnp.sum(p - v, -1),
         "residual": lambda self, p, v, d: 0 * (p - v)},
        "raise it",
    ),
    "weights_in_half": (
        "memory",
        {"init": lambda self, key, dk, dv: {"w1": jnp.zeros((dk, dv), jnp.bfloat16)}},
        "it must be [in, out] or [out], float32",
    ),
    "start_without_its_key": ("memory", {"init": init_at_random}, "differs for the same key"),
    "weight_read_twice": ("memory", {"apply": apply_twice}, "must be read so, once"),
    "answer_sees_other_tokens": (
        "memory",
        {"apply": lambda self, read, x: read.linear("w1", x - jnp.mean(x, axis=0))},
        "depends on other tokens",
    ),
    "answer_of_another_width": (
        "memory",
        {"apply": lambda self, read, x: read.linear("w1", x)[:, 1:]},
        "apply gives",
    ),
    "linear_untrue": (
        "memory",
        {"apply": lambda self, read, x: jnp.tanh(read.linear("w1", x))},
        "as `is_linear` says",
    ),
    "sides_swapped": (
        "memory",
        {"sides": lambda self, name: ("value", "key")},
        "but the weight has shape",
    ),
    "fixed_of_no_weight": ("memory", {"fixed": ("w7",)}, "which init does not make"),
    "decay_that_grows": (
        "retention",
        {"effective": lambda self, gates: {**gates, "log_decay": -gates["log_decay"]}},
        "above 0",
    ),
    "gate_dropped": (
        "retention",
        {"effective": lambda self, gates: {"lr": gates["lr"]}},
        "drops gate 'log_decay'",
    ),
    "linked_now_and_then": ("retention", {"linked": "sometimes"}, "must be None, 'chunk' or"),
    "linear_with_a_link": ("retention", {"link": lambda self, A: 2 * A}, "is not W on its range"),
    "unlink_of_another_link": (
        "retention",
        {"linked": "token", "link": lambda self, A: jnp.sinh(A), "unlink": lambda self, W: W},
        "link(unlink(W)) is not W",
    ),
    "prox_infinite_at_zero": (
        "retention",
        {"linked": "token", "proximal": True,
         "prox": lambda self, new, old, gates: new / jnp.sqrt(jnp.sum(new * new))},
        "prox at 0 holds NaN",
    ),
    "prox_that_climbs": (
        "retention",
        {"linked": "token", "proximal": True,
         "prox": lambda self, new, old, gates: 2 * old - new},
        "along g",
    ),
    "chunk_form_of_another_step": (
        "algorithm",
        {"coefficients": other_coefficients},
        "is not the recursion of `step`",
    ),
    "buffer_not_kept": ("algorithm", as_momentum(lambda S, G: (None, None, S)), "but keeps"),
    "steps_uphill": (
        "algorithm",
        {**as_momentum(lambda S, G: (S, None, G)), "linear": False},
        "raise a squared error",
    ),
    "step_infinite_at_zero": (
        "algorithm",
        as_momentum(lambda S, G: (S, None, S / jnp.sqrt(jnp.sum(G * G)))),
        "holds NaN or infinity",
    ),
    "buffer_of_no_name": ("algorithm", {"keeps": ("M",)}, "buffers are 'S' and 'V'"),
}  # fmt: skip


@pytest.fixture
def broken(monkeypatch):
    """Makes a registered member of a base and what is wrong; the name is free again after."""

    def make(axis: str, wrong: dict, frozen: bool = True):
        registry = REGISTRIES[axis]
        monkeypatch.setattr(registry, "_members", dict(registry._members))
        cls = type("Broken", (BASES[axis],), {"__doc__": "W = 0.", **wrong})
        decorated = dataclasses.dataclass(frozen=True, kw_only=True)(cls) if frozen else cls
        return registry.register("broken")(decorated)

    return make


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_named(name, broken):
    axis, wrong, told = BROKEN[name]
    with pytest.raises(AssertionError) as caught:
        check(axis, broken(axis, wrong)(), rules=0)
    assert told in str(caught.value)
    assert "Broken" in str(caught.value) or "Gate(" in str(caught.value)


def test_the_member_that_is_broken_nowhere_passes(broken):
    """So it is what the table above adds that fails."""
    for axis in BASES:
        check(axis, broken(axis, {})(), rules=0)


def test_a_class_that_is_no_dataclass_is_refused(broken):
    with pytest.raises(AssertionError, match="frozen=True"):
        testing.check_bias(broken("bias", {}, frozen=False)(), rules=0)


def test_a_class_that_is_not_registered_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Mine(miras.bias.L2Loss):
        """r."""

    with pytest.raises(AssertionError, match=r"not registered: decorate it with miras\.bias"):
        testing.check_bias(Mine(), rules=0)


def test_a_member_of_another_axis_is_refused():
    with pytest.raises(AssertionError, match=r"is not below miras\.memory"):
        testing.check_memory(miras.bias.L2Loss())  # pyright: ignore[reportArgumentType]


def test_a_residual_may_differ_where_that_is_said(broken):
    testing.check_bias(broken("bias", residual(lambda r: 2 * r))(), is_gradient=False, rules=0)
    with pytest.raises(AssertionError, match="climbs the loss"):
        testing.check_bias(broken("bias", residual(lambda r: -r))(), is_gradient=False, rules=0)


RULE = miras.Rule(memory="vector", bias="l2", retention="none", algorithm="gd")


@pytest.mark.slow
def test_backends_that_differ_are_told(monkeypatch):
    """The gradients as well: what is changed here is the loss by a share that has no value."""
    honest = checked_rules.scan_with_loss

    def other(*args, backend, **options):
        y, state, loss = honest(*args, backend=backend, **options)
        if backend == "xla":
            y = 2 * y - jax.lax.stop_gradient(y)
        return y, state, loss

    monkeypatch.setattr(checked_rules, "scan_with_loss", other)
    with pytest.raises(AssertionError, match=r"'xla' is not 'reference' at \['gradients'\]"):
        testing.check_rule(RULE)


@pytest.mark.slow
def test_a_state_that_is_forgotten_is_told(monkeypatch):
    honest = checked_rules.scan
    monkeypatch.setattr(
        checked_rules, "scan", lambda *args, state=None, **options: honest(*args, **options)
    )
    with pytest.raises(AssertionError, match="a split sequence is not the whole one"):
        checked_rules._check_split(RULE)


def test_a_member_without_a_legal_rule_is_told():
    with pytest.raises(AssertionError, match="no rule with memory KV"):
        testing.check_memory(miras.memory.KV(), beside={"bias": "dot"})


def test_random_inputs_are_of_the_shapes_that_a_rule_wants():
    rule = miras.Rule(
        memory={"kind": "slots", "count": 3}, bias="dot", algorithm="gd",
        retention={"kind": "l2", "granularity": "slot"},
    )  # fmt: skip
    W0, q, k, v, gates = testing.random_inputs(rule, B=2, T=5, H=3, dk=2, dv=4)
    assert q.shape == k.shape == (2, 5, 3, 2)
    assert v.shape == (2, 5, 3, 4)
    assert gates["slot"].shape == gates["log_decay"].shape == (2, 5, 3, 3)
    assert {leaf.shape[0] for leaf in W0.values()} == {3}
    np.testing.assert_allclose(np.linalg.norm(k, axis=-1), 1, rtol=1e-12)
