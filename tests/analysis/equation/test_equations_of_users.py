"""Equations of users' parts, and formulas as text and as the command prints them."""

import dataclasses
import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

import miras
from miras import testing
from miras.analysis.equation import text
from miras.errors import ConfigError
from miras.parts.formula import AlgorithmFormula, BiasFormula, Line, number
from miras.testing.formula import check_formula
from tests.analysis.equation.drawn import check_drawn
from tests.contract.space import REGISTRIES


@pytest.fixture
def own():
    """Registers parts for one test."""
    made = []

    def register(axis, cls):
        registry = REGISTRIES[axis]
        cls = dataclasses.dataclass(
            frozen=True, **({"kw_only": True} if axis == "algorithm" else {})
        )(cls)
        made.append((registry, f"own{len(made)}"))
        return registry.register(made[-1][1])(cls)

    yield register
    for registry, kind in made:
        del registry._members[kind]


def _loss(self, pred, target, gates):
    return jnp.sum(jnp.logaddexp(pred - target, target - pred) - jnp.log(2.0), axis=-1)


class LogCosh(miras.bias.Bias):
    """log cosh(r)."""

    loss = _loss


class WithFormula(miras.bias.Bias):
    """log cosh(r), written."""

    loss = _loss

    def formula(self, gates):
        return BiasFormula(residual=lambda r: rf"\tanh({r})")

    def sources(self):
        return ("mine, 2026",)


class Damped(miras.optim.Momentum):
    """Another step below Momentum's formula."""

    def step(self, S, V, G, momentum, rate):
        S = momentum * S - (1 - momentum) * G
        return S, None, S


class Halved(miras.retention.L2):
    """Another effective gate below l2's formula."""

    def effective(self, gates):
        return {**gates, "log_decay": gates["log_decay"] / 2}


class Doubled(miras.memory.Matrix):
    """Another map below the matrix's formula."""

    def features(self, read, x):
        return 2 * x

    def apply(self, read, x):
        return read.linear("w1", 2 * x)


@pytest.mark.parametrize(
    ("axis", "cls", "says", "not_this"),
    [
        ("bias", LogCosh, "rho is the residual", "tanh"),
        ("algorithm", Damped, "step is that of algorithm", "S_t = μ_t"),
        ("retention", Halved, "mapped by `effective` of retention", "MIRAS, arXiv 2504.13173, t"),
        ("memory", Doubled, "phi is the feature map of memory", "y_t = q_t W_t"),
    ],
)
def test_a_part_without_a_formula_is_named_and_not_guessed(own, axis, cls, says, not_this):
    member = own(axis, cls)()
    beside = {"bias": "huber"} if axis != "bias" else {}
    told = miras.equations(miras.Rule(**beside, **{axis: member}))
    assert says in told
    assert f"{member.kind}(" in told
    assert not_this not in told
    check_drawn(miras.equations(miras.Rule(**beside, **{axis: member}), latex=True))
    check_formula(axis, member, None)


def test_a_part_writes_its_own(own):
    rule = miras.Rule(bias=own("bias", WithFormula)())
    told = miras.equations(rule)
    assert "e_t = tanh(r_t)" in told
    assert "mine, 2026" in told
    testing.check_bias(rule.bias, rules=0)


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        (r"\foo(r)", "not in the subset"),
        (r"\frac{r", "argument is missing|do not match"),
        ("", "empty"),
    ],
)
def test_a_broken_formula_breaks_the_contract(own, formula, why):
    class Broken(WithFormula):
        """With a formula that is none."""

        def formula(self, gates):
            return BiasFormula(residual=lambda r: formula)

    with pytest.raises(AssertionError, match=why):
        testing.check_bias(own("bias", Broken)(), rules=0)


def test_a_formula_must_mention_the_parts_gates(own):
    class Silent(miras.optim.Momentum):
        """Momentum whose formula leaves mu_t out."""

        def formula(self, gates, G, rate):
            return AlgorithmFormula("+ S_t", (Line("S_t", f"S_{{t-1}} - {G}"),))

    with pytest.raises(AssertionError, match="does not mention the gate 'log_momentum'"):
        testing.check_algorithm(own("algorithm", Silent)(), rules=0)


@pytest.mark.parametrize(
    ("latex", "want"),
    [
        (r"\frac{1}{2} \|x\|_2^2", "1/2 ‖x‖_2²"),
        (r"\frac{a + b}{c}", "(a + b) / c"),
        (r"W_{t-1} k_t^\top", "W_{t-1} k_tᵀ"),
        (r"\hat{W} \tilde{k}", "Ŵ k̃"),
        (r"\sqrt{V_t} + 10^{-6}", "√V_t + 10⁻⁶"),
        (r"\mathrm{softmax}_s(x)", "softmax_s(x)"),
        (r"x \text{ if } y", "x if y"),
    ],
)
def test_latex_as_text(latex, want):
    assert text(latex) == want


@pytest.mark.parametrize("latex", [r"\unknown", "{a", "a}", r"\frac{a}", "x_"])
def test_what_is_no_formula_is_refused(latex):
    with pytest.raises(ConfigError, match="formula"):
        text(latex)


@pytest.mark.parametrize(
    ("value", "want"),
    [(1e-6, "10^{-6}"), (0.999, "0.999"), (2.5e-7, r"2.5 \cdot 10^{-7}"), (5.0, "5"), (3, "3")],
)
def test_numbers_keep_their_digits(value, want):
    assert number(value) == want


def test_what_has_no_rule_has_no_equations():
    with pytest.raises(ConfigError, match="Rule"):
        miras.equations("yaad")
    with pytest.raises(ConfigError, match="its own chunk"):
        miras.equations(miras.preset("yaad"), chunk=4)
    with pytest.raises(ConfigError, match="closed form"):
        miras.equations(miras.preset("yaad").rule, exact=True)
    with pytest.raises(ConfigError, match="whole number"):
        miras.equations(miras.Rule(), chunk=0)


def test_describe_prints_latex_and_survives_ascii():
    run = [sys.executable, "-m", "miras", "describe", "yaad"]
    told = subprocess.run([*run, "--latex"], capture_output=True, text=True, check=True).stdout
    check_drawn(told)
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    told = subprocess.run(run, capture_output=True, check=True, env=env).stdout.decode("ascii")
    assert "alpha_t W_{t-1} - eta_t g_t" in told
    assert "?" not in told
