"""The contract of an attentional bias."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array
from miras.bias import Bias
from miras.testing.config import check_config
from miras.testing.expect import (
    double_precision_op_by_op,
    expect,
    expect_close,
    expect_finite,
    name_of,
)
from miras.testing.formula import check_formula
from miras.testing.inputs import span
from miras.testing.rules import check_rules

Gates = dict[str, Array]


def check_bias(
    bias: Bias, *, is_gradient: bool = True, beside: Mapping[str, Any] | None = None, rules: int = 3
) -> None:
    """Hold a bias to its contract.

    Config and docstring; shapes; tokens do not see each other; the residual is the gradient of the
    loss, or at least descends on it; both are finite and can be differentiated, also where the
    prediction is right and where it is far off; small steps lower the loss; a declared `slope` is
    true; the formula, if any, can be written and has
    the part's gates; and the backends agree on rules with it.

    Args:
        bias: the config object.
        is_gradient: False where the residual is meant to differ from the gradient of the loss, as
            a smoothed one does.
        beside: parts that it needs; see `Rule`.
        rules: with how many rules backends are compared; 0 leaves this out, which is most of the
            time.

    Raises:
        AssertionError: saying what is broken.
    """
    check_config(bias, Bias)
    roles = {gate.name: gate.role for gate in bias.gates() if gate.role is not None}
    expect(
        not roles,
        f"{name_of(bias)} declares gates with roles, {roles}: those of a bias have none, as only "
        "the bias reads them.",
    )
    with double_precision_op_by_op():
        rng = np.random.default_rng(0)
        pred, target = jnp.asarray(rng.normal(size=(2, 5, 3)))
        gates = {
            gate.name: jnp.asarray(
                rng.uniform(*span(gate), (5,) if gate.side == "head" else (5, 3))
            )
            for gate in bias.gates()
        }
        _check_shapes(bias, pred, target, gates)
        _check_tokens(bias, pred, target, gates)
        _check_residual(bias, pred, target, gates, is_gradient)
        _check_finite(bias, pred, target, gates)
        _check_descent(bias, pred, target, gates)
    check_formula("bias", bias, beside)
    check_rules(beside, rules, bias=bias)


def _check_shapes(bias: Bias, pred: Array, target: Array, gates: Gates) -> None:
    for dtype in (jnp.float32, jnp.float64):
        args = jax.tree.map(lambda x, d=dtype: x.astype(d), (pred, target, gates))
        loss = jax.eval_shape(bias.loss, *args)
        expect(
            (loss.shape, loss.dtype) == (pred.shape[:1], dtype),
            f"{name_of(bias)}.loss gives {loss.shape} {loss.dtype} of {pred.shape} {dtype.__name__}"
            f": it must be one number a token, {pred.shape[:1]}, in the same dtype.",
        )
        residual = jax.eval_shape(bias.residual, *args)
        expect(
            (residual.shape, residual.dtype) == (pred.shape, dtype),
            f"{name_of(bias)}.residual gives {residual.shape} {residual.dtype}: it must be as "
            f"pred, {pred.shape} {dtype.__name__}.",
        )


def _check_tokens(bias: Bias, pred: Array, target: Array, gates: Gates) -> None:
    whole = bias.loss(pred, target, gates), bias.residual(pred, target, gates)
    cut = jax.tree.map(lambda x: x[:2], (pred, target, gates))
    alone = bias.loss(*cut), bias.residual(*cut)
    first = jax.tree.map(lambda x: x[:2], whole)
    expect_close(alone, first, f"{name_of(bias)}: a token's loss depends on other tokens")


def _check_residual(
    bias: Bias, pred: Array, target: Array, gates: Gates, is_gradient: bool
) -> None:
    slope = jax.grad(lambda p: jnp.sum(bias.loss(p, target, gates)))(pred)
    residual = bias.residual(pred, target, gates)
    if is_gradient:
        hint = "; pass is_gradient=False if that is meant"
        what = f"{name_of(bias)}: the residual is not d loss / d pred{hint}"
        expect_close(residual, slope, what, 1e-6)
    along = jnp.sum(slope * residual, axis=-1)
    expect(jnp.all(along >= 0), f"{name_of(bias)}: the residual climbs the loss: {along}.")
    if bias.slope is not None:
        line = bias.slope * pred - target
        what = f"{name_of(bias)}: the residual is not {bias.slope} pred - target, as `slope` says"
        expect_close(residual, line, what)


def _check_finite(bias: Bias, pred: Array, target: Array, gates: Gates) -> None:
    for place, at in {
        "at a prediction that is right": target,
        "at zero": jnp.zeros_like(pred),
        "far off": 1e4 * pred,
    }.items():
        aim = jnp.zeros_like(target) if place == "at zero" else target
        loss = jax.grad(lambda p, v, d: jnp.sum(bias.loss(p, v, d)), argnums=(0, 1))
        inner = jax.grad(lambda p, v, d: jnp.sum(jnp.sin(bias.residual(p, v, d))), argnums=(0, 1))
        found = {
            "loss": bias.loss(at, aim, gates),
            "residual": bias.residual(at, aim, gates),
            "gradient of the loss": loss(at, aim, gates),
            "gradient of the residual": inner(at, aim, gates),
        }
        for what, value in found.items():
            expect_finite(value, f"{name_of(bias)}: the {what} {place}")


def _check_descent(bias: Bias, pred: Array, target: Array, gates: Gates) -> None:
    start = bias.loss(pred, target, gates)
    for _ in range(10):
        pred = pred - 0.02 * bias.residual(pred, target, gates)
    end = bias.loss(pred, target, gates)
    expect(
        jnp.all(end < start), f"{name_of(bias)}: steps along -residual raise it: {start}, {end}."
    )
