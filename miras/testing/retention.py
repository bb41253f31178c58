"""The contract of a retention gate."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.array_typing import Array, Leaf
from miras.retention import Retention
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


def check_retention(
    retention: Retention,
    *,
    descends: bool = True,
    beside: Mapping[str, Any] | None = None,
    rules: int = 3,
) -> None:
    """Hold a retention gate to its contract.

    Config and docstring; the gates are decays, and `effective` keeps them; a linear geometry maps
    nothing; `constrain` gives weights of the link's range, there link(unlink(W)) = W, and any
    learned start gives finite weights and gradients, 0 among them; the proximal map is finite and
    can be differentiated, also where nothing is written; a small step against the gradient
    does not climb; the formula, if any, can be written and has
    the part's gates; and the backends agree on rules with it.

    Args:
        retention: the config object.
        descends: False where the map is known not to keep the direction of a step.
        beside: parts that it needs; see `Rule`.
        rules: with how many rules backends are compared; 0 leaves this out, which is most of the
            time.

    Raises:
        AssertionError: saying what is broken.
    """
    check_config(retention, Retention)
    with double_precision_op_by_op():
        rng = np.random.default_rng(0)
        gates = _check_gates(retention, rng)
        expect(
            retention.linked in (None, "chunk", "token"),
            f"{name_of(retention)}.linked is {retention.linked!r}: it must be None, 'chunk' or "
            "'token'.",
        )
        for shape in ((3, 4), (4,)):
            raw = jnp.asarray(rng.normal(size=shape))
            _check_start(retention, raw)
            _check_start(retention, jnp.zeros(shape))
            _check_maps(retention, raw)
            if retention.proximal:
                _check_prox(retention, raw, jnp.asarray(rng.normal(size=shape)), gates)
            if descends:
                _check_descent(retention, raw, jnp.asarray(rng.normal(size=shape)), gates)
    check_formula("retention", retention, beside)
    check_rules(beside, rules, retention=retention)


def _check_gates(retention: Retention, rng: np.random.Generator) -> dict[str, Array]:
    """One token's effective gates."""
    for gate in retention.gates():
        expect(
            gate.range == "log_unit" or gate.role != "decay",
            f"{gate}: decays are logs, so the range must be 'log_unit'.",
        )
    drawn = {
        gate.name: jnp.asarray(rng.uniform(*span(gate), 2 if gate.side == "head" else (2, 4)))
        for gate in retention.gates()
    }
    drawn["lr"] = jnp.asarray(rng.uniform(0.002, 0.02, 2))
    effective = retention.effective(drawn)
    for name, value in drawn.items():
        expect(
            name in effective and effective[name].shape == value.shape,
            f"{name_of(retention)}.effective drops gate {name!r}, or changes its shape.",
        )
    expect_finite(effective, f"{name_of(retention)}.effective")
    for name, _ in retention.decays:
        expect(
            name in effective and jnp.all(effective[name] <= 0),
            f"{name_of(retention)}.effective gives no {name}, or one above 0: {effective}.",
        )
    return {name: value[0] for name, value in effective.items()}


def _check_start(retention: Retention, raw: Leaf) -> None:
    W = retention.constrain(raw)
    A = retention.unlink(W)
    for what, leaf in {"constrain": W, "unlink": A, "link": retention.link(A)}.items():
        expect(
            leaf.shape == raw.shape and leaf.dtype == raw.dtype,
            f"{name_of(retention)}.{what} turns {raw.shape} {raw.dtype} into {leaf.shape} "
            f"{leaf.dtype}.",
        )
        expect_finite(leaf, f"{name_of(retention)}.{what} of the start {raw}")
    again = retention.link(A)
    expect_close(again, W, f"{name_of(retention)}: link(unlink(W)) is not W on its range", 1e-6)
    for what, start in {
        "link(unlink(W))": lambda x: retention.link(retention.unlink(retention.constrain(x))),
        "unlink(W)": lambda x: retention.unlink(retention.constrain(x)),
    }.items():
        slope = jax.grad(lambda x, start=start: jnp.sum(jnp.sin(start(x))))(raw)
        expect_finite(slope, f"{name_of(retention)}: the gradient of {what} by a learned start")
    constrained = retention.constrain(W) if retention.linked is None else W
    expect_close(constrained, W, f"{name_of(retention)}.constrain moves what is in its range")


def _check_maps(retention: Retention, raw: Leaf) -> None:
    if retention.linked is not None:
        return
    for what in ("link", "unlink", "constrain"):
        same = getattr(retention, what)(raw)
        told = f"{name_of(retention)} is linear (linked is None), but {what} is not the identity"
        expect_close(same, raw, told)
    expect(not retention.proximal, f"{name_of(retention)} is proximal, but linked is None.")


def _check_prox(retention: Retention, raw: Leaf, step: Leaf, gates: dict[str, Array]) -> None:
    W = retention.constrain(raw)
    for place, new in {"": W + 0.1 * step, " where nothing is written": W, " at 0": 0 * W}.items():
        old = 0 * W if "0" in place else W
        near = retention.prox(new, old, gates)
        expect(
            near.shape == W.shape and near.dtype == W.dtype,
            f"{name_of(retention)}.prox turns {W.shape} {W.dtype} into {near.shape} {near.dtype}.",
        )
        if "0" in place and not np.allclose(retention.constrain(0 * raw), 0):
            continue  # 0 is out of its range
        expect_finite(near, f"{name_of(retention)}.prox{place}")
        slope = jax.grad(
            lambda n, o: jnp.sum(jnp.sin(retention.prox(n, o, gates))), argnums=(0, 1)
        )(new, old)
        expect_finite(slope, f"{name_of(retention)}: the gradient of prox{place}")
    fixed = {"link": retention.link(W), "unlink": retention.unlink(W)}
    for what, same in fixed.items():
        told = f"{name_of(retention)} is proximal, so its state is W, but {what} is no identity"
        expect_close(same, W, told)


def _check_descent(retention: Retention, raw: Leaf, g: Leaf, gates: dict[str, Array]) -> None:
    """A step along -g, less what the map does without it, does not climb along g."""
    W = retention.constrain(raw)
    A = retention.unlink(W)

    def after(A: Leaf) -> Leaf:
        return retention.prox(A, W, gates) if retention.proximal else retention.link(A)

    moved = after(A - 1e-3 * g) - after(A)
    along = float(jnp.sum(moved * g))
    expect(
        along <= 1e-12,
        f"{name_of(retention)}: a step along -g moves W by {along:.2g} along g; pass "
        "descends=False if that is meant.",
    )
