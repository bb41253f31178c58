"""The equations, evaluated as they are written, give what `miras.scan` gives."""

import jax.numpy as jnp
import numpy as np
import pytest

from miras.analysis.equation import compose, setting_of
from miras.analysis.equation.gates import is_one, symbol
from miras.config import to_dict
from miras.engine.readers import FixedWeightsReader
from miras.testing.expect import double_precision_op_by_op
from tests.analysis.equation.equation_values import Values, split_name
from tests.conformance import oracle
from tests.conformance.members import CASES, inputs

T, C = 5, 2
AXES = ("memory", "bias", "retention", "algorithm")


def evaluable(case) -> bool:
    """Without terms that only a call has, sweeps, roots that are solved for, and what words say."""
    rule, kinds = case.rule, case.rule.kinds()
    deep = kinds["memory"] not in ("matrix", "vector") and not rule.memory.is_linear
    channels = any(gate.side != "head" for gate in rule.gates)
    by_words = kinds["memory"] == "vector" and {"rows", "muon"} & {*kinds.values()}
    inverse = getattr(rule.retention, "form", "") == "ftrl" and rule.retention.threshold == "smooth"
    no_inverse = getattr(rule.retention, "q", 0) == 3 and rule.retention.form == "printed"
    return not (
        case.terms
        or case.k_write
        or case.refine
        or by_words
        or inverse
        or no_inverse
        or kinds["retention"] == "f_divergence"
        or getattr(rule.memory, "write", "gradient") != "gradient"
        or (deep and rule.algorithm.erases)  # along an input that each weight has of its own
        or (kinds["memory"] != "matrix" and rule.retention.association_count > 1)
        or (deep and (channels or kinds["memory"] in ("slots", "features")))
        or (channels and kinds["memory"] == "vector")
    )


def given(rule, streams) -> dict:
    """The symbols of a case."""
    W0 = {name: jnp.asarray(w[0]) for name, w in streams["W0"].items()}
    fixed = {name: W0.pop(name) for name in list(W0) if name in rule.memory.fixed}
    found: dict = {("I", ""): jnp.eye(4)}
    if rule.memory.is_linear:
        found["I", ""] = jnp.eye(W0["w1"].shape[0])
    single = rule.memory.is_linear or rule.kinds()["memory"] == "vector"
    found["W", (0,)] = jnp.atleast_2d(W0["w1"]) if single else W0
    for name, letter in {"scale": "s", "shift": "c"}.items():
        if name in fixed:
            found[letter, ()] = fixed[name][None]
    found["phi", ()] = lambda x: rule.memory.features(FixedWeightsReader({}, fixed), x)
    for name in ("k", "v", "q"):
        for t in range(T):
            found[name, (t + 1,)] = jnp.asarray(streams[name][0, t, 0])[None]
    for gate in rule.gates:
        values = np.asarray(streams["gates"][gate.name])
        if "decay" in gate.name and gate.side != "head":
            values = np.maximum(values, rule.retention.min_log_decay)
        values = np.exp(values) if gate.name.startswith("log_") else values
        name, *_ = split_name(symbol(gate))
        for t in range(T):
            x = jnp.asarray(values[0, t, 0])
            at = (name, (t + 1,))
            found[at] = x[None] if x.ndim else x
            if not gate.learned:
                assert is_one(gate), "such a case needs constants"
    return found


NAMES = [name for name, case in CASES.items() if evaluable(case)]
SAMPLE = NAMES[::10]  # CI evaluates some, `make exhaustive` all


@pytest.mark.parametrize(
    "name", [n if n in SAMPLE else pytest.param(n, marks=pytest.mark.exhaustive) for n in NAMES]
)
@pytest.mark.sample(0.5)
def test_a_rule_computes_what_its_equations_say(name):
    case = CASES[name]
    rule = case.rule
    with double_precision_op_by_op():
        streams = inputs(case, T=T, H=1)
        for gate in rule.gates:
            if is_one(gate):
                streams["gates"][gate.name] = np.zeros_like(streams["gates"][gate.name]) + (
                    0.0 if gate.name.startswith("log_") else 1.0
                )
        parts = {axis: to_dict(getattr(rule, axis)) for axis in AXES}
        how = {"chunk": C, "refine": 0, "exact": case.exact}
        want, _ = oracle.run(**parts, order=rule.order, read=rule.read, **how, **streams)
        found = compose(setting_of(rule, C, 0, case.exact))
        values = Values(found, given(rule, streams), C)
        got = jnp.concatenate([values.at("y", t) for t in range(1, T + 1)])
    np.testing.assert_allclose(got, want[0, :, 0], rtol=1e-8, atol=1e-8)
