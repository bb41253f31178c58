"""Rules that a member is part of: the backends agree, states go on, nothing compiles twice."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.config import from_dict, to_dict
from miras.errors import ConfigError
from miras.rule.rule import Rule
from miras.sequence.scan import _run, scan
from miras.testing.expect import double_precision_op_by_op, expect, expect_close, expect_finite
from miras.testing.gradients import value_and_gradients
from miras.testing.inputs import Inputs, random_inputs, scan_with_loss

# What a member is put beside, most telling first; the first few that are legal are taken.
_DEEP = {"kind": "mlp", "residual": False, "norm": None}
_SURROUNDINGS: tuple[dict[str, Any], ...] = (
    {"memory": "matrix", "bias": "l2", "retention": "l2", "algorithm": "gd"},
    {"memory": _DEEP, "bias": "huber", "retention": "l2", "algorithm": "momentum"},
    {"memory": _DEEP, "bias": "l2", "retention": "kl", "algorithm": {"kind": "omega", "window": 2}},
    {"memory": "matrix", "bias": "l2", "retention": "l2", "algorithm": "momentum"},
    {"memory": "matrix", "bias": "dot", "retention": {"kind": "l2", "granularity": "key"}},
    {"memory": {"kind": "slots", "count": 3}, "bias": "dot",
     "retention": {"kind": "l2", "granularity": "slot"}},
    {"memory": "kv", "bias": "l2", "retention": "none", "algorithm": "nonparametric"},
)  # fmt: skip
_SEMANTICS: tuple[dict[str, Any], ...] = ({"refine": 1}, {"exact": True})


def rules_with(beside: Mapping[str, Any] | None, **member: Any) -> Iterator[Rule]:
    """Legal rules with a member in them.

    Args:
        beside: parts, `order` or `read` that it needs; see `Rule`.
        **member: the member, by its axis.
    """
    orders = ({"order": "decay_first"}, {}, {"read": "snapshot"})
    found = set()
    for i, parts in enumerate(_SURROUNDINGS):
        wanted = orders[i % 2]
        for more in (wanted, {}, {"read": "snapshot"}):
            try:
                rule = Rule(**{**parts, **more, **(beside or {}), **member})
            except ConfigError:
                continue
            if rule not in found:
                found.add(rule)
                yield rule
            break


def check_rules(beside: Mapping[str, Any] | None, at_most: int, **member: Any) -> None:
    """Backends agree on rules with a member, over a chunk and a remainder, also under a mask.

    Args:
        beside: parts, `order` or `read` that the member needs; see `Rule`.
        at_most: rules; 0 for none.
        **member: the member, by its axis.

    Raises:
        AssertionError: where they do not, or where no rule is legal.
    """
    if at_most == 0:
        return
    rules = list(rules_with(beside, **member))[:at_most]
    (axis,) = member
    expect(
        rules,
        f"no rule with {axis} {member[axis]} is legal beside any of the usual parts: name parts "
        f"that it needs, as in check_{axis}(..., beside={{'bias': 'dot'}}).",
    )
    first, *others = rules
    check_rule(first)
    for rule in others:
        check_rule(rule, mask=np.array([[True, False, True]]))
    _check_semantics(rules)
    _check_split(first)
    _check_narrow(first)


def _check_semantics(rules: list[Rule]) -> None:
    """One rule that takes them with a sweep of refinement, one in closed form."""
    for options in _SEMANTICS:
        for rule in rules:
            try:
                check_rule(rule, **options)
            except ConfigError:
                continue
            break


def check_rule(rule: Rule, *, T: int = 3, chunk: int = 2, seed: int = 0, **options: Any) -> None:
    """`xla` agrees with `reference` in float64, and both are finite.

    Compared are outputs, inner losses and the state, and the gradients of a scalar of all of them
    by W0, q, k, v and every gate.

    Args:
        rule: the rule.
        T: tokens.
        chunk: as for `miras.scan`.
        seed: of the random inputs.
        **options: `refine`, `exact`, `mask` or `segment_ids`, as for `miras.scan`.

    Raises:
        AssertionError: where they differ by more than rounding, or hold NaN or infinity.
        ConfigError: where the rule does not take the options.
    """
    told = ", ".join(f"{key}={value!r}" for key, value in {"chunk": chunk, **options}.items())
    with double_precision_op_by_op():
        inputs = jax.tree.map(jnp.asarray, random_inputs(rule, T=T, seed=seed))
        options = {"chunk": chunk, **options}
        want = _value_and_gradients(rule, "reference", inputs, options)
        expect_finite(want, f"{rule} with {told}: backend 'reference'")
        got = _value_and_gradients(rule, "xla", inputs, options)
        expect_close(got, want, f"{rule} with {told}: backend 'xla' is not 'reference'")


def _value_and_gradients(rule: Rule, backend: str, inputs: Inputs, options: dict[str, Any]):
    def run(inputs: Inputs):
        y, state, loss = scan_with_loss(rule, *inputs, backend=backend, **options)
        return {"y": y, "loss": loss, "memory": _memory(state)}

    found, gradients = value_and_gradients(run, inputs)
    return {**found, "gradients": gradients._asdict()}


def _memory(state: Any) -> Any:
    """What a state says about the memory, without the count of tokens."""
    parts = ("A", "S", "V", "R", "L", "carried") if hasattr(state, "A") else ("k", "v")
    return {name: getattr(state, name) for name in parts}


def _check_split(rule: Rule) -> None:
    """A sequence in two calls is the sequence in one, split inside a chunk."""
    with double_precision_op_by_op():
        inputs = jax.tree.map(jnp.asarray, random_inputs(rule))
        whole, _ = scan(rule, *inputs, chunk=2)
        W0, *streams = inputs
        head = jax.tree.map(lambda x: x[:, :1], streams)
        tail = jax.tree.map(lambda x: x[:, 1:], streams)
        first, state = scan(rule, W0, *head, chunk=2)
        second, _ = scan(rule, W0, *tail, chunk=2, state=state)
        halves = jnp.concatenate([first, second], axis=1)
        expect_close(halves, whole, f"{rule}: a split sequence is not the whole one")


def _check_narrow(rule: Rule) -> None:
    """Finite in bfloat16 and float32, and compiled once for equal rules."""
    inputs = jax.tree.map(jnp.asarray, random_inputs(rule, dtype=np.float32))
    half = inputs._replace(**{n: getattr(inputs, n).astype(jnp.bfloat16) for n in "qkv"})
    with jax.disable_jit():
        found = _value_and_gradients(rule, "xla", half, {"chunk": 2})
    expect_finite(found, f"{rule} in bfloat16")
    again = from_dict(Rule, to_dict(rule))
    before = _compiled()
    y, _ = scan(rule, *inputs, chunk=2)
    expect_finite(y, f"{rule} in float32")
    scan(again, *jax.tree.map(lambda x: x + 0, inputs), chunk=2)
    expect(
        _compiled() - before <= 1,
        f"{rule} compiles anew for an equal rule: configs must be plain data.",
    )


def _compiled() -> int:
    """How many programs `scan` has compiled."""
    return _run._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
