"""Dtypes, values and states that do not fit `miras.scan`, layers and models: one sentence each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.layers import MemoryConfig, MemoryLayer
from miras.models import LanguageModelConfig
from miras.testing import random_inputs
from tests.tolerances import tolerance

CLOSE = tolerance(np.float32, 20, 16)  # 5 tokens of 4 channels

RULES = {
    "titans": miras.Rule("mlp", "huber", "l2", "momentum"),
    "kv": miras.Rule("kv", algorithm="nonparametric"),
}
LEGAL = "use float32, bfloat16 or float64"


def call(**changes):
    return miras.scan(RULES["titans"], **{**arrays(), "chunk": 4, **changes})


@functools.cache
def arrays():
    return random_inputs(RULES["titans"], B=2, T=5, dk=4, dtype=np.float32)._asdict()


def changed(where, change):
    """Arguments with one array changed: a stream, `gate NAME` or `W0 NAME`."""
    given = arrays()
    if " " not in where:
        return {where: change(given[where])}
    group, name = where.split()
    group = {"gate": "gates"}.get(group, group)
    return {group: {**given[group], name: change(given[group][name])}}


PLACES = ("q", "k", "v", "gate lr", "gate log_decay", "gate threshold", "W0 w1", "W0 w2")


@pytest.mark.parametrize("dtype", ["float16", "complex64", "int32", "bool"])
@pytest.mark.parametrize("place", PLACES)
def test_other_dtypes_are_refused(place, dtype):
    with pytest.raises(miras.ConfigError, match=rf"{place.split()[-1]}.* has dtype .*: {LEGAL}"):
        call(**changed(place, lambda x: jnp.asarray(x).astype(dtype)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [p for p in PLACES if p[0] != "g"])
def test_what_is_not_finite_is_refused(place, value):
    def spoil(x):
        x = x.copy()
        x.flat[-1] = value
        return x

    with pytest.raises(miras.ConfigError, match="holds NaN or infinity"):
        call(**changed(place, spoil))
    with pytest.raises(miras.ConfigError, match="holds NaN or infinity"):
        call(**changed(place, lambda x: jnp.asarray(spoil(x), jnp.bfloat16)))
    if "W0" not in place:  # the last token may hold anything if it is not there
        call(**changed(place, spoil), mask=np.arange(5)[None].repeat(2, 0) < 4)


@pytest.mark.parametrize("wrong", ["text", None, [[1.0], [1.0, 2.0]], object(), {"a": 1}])
@pytest.mark.parametrize("place", ["q", "k", "v", "gate lr", "W0 w1", "mask", "segment_ids"])
def test_what_is_no_array_is_refused(place, wrong):
    if wrong is None and place in ("mask", "segment_ids"):
        return
    label = place in ("mask", "segment_ids")
    with pytest.raises(miras.ConfigError, match=r"makes no array of numbers: give an array|has "):
        call(**({place: wrong} if label else changed(place, lambda _: wrong)))


def test_segment_ids_that_int32_does_not_hold_are_refused():
    with pytest.raises(miras.ConfigError, match="it must fit in int32"):
        call(segment_ids=np.full((2, 5), 2**40))


@pytest.mark.usefixtures("float64")
def test_float64_is_not_narrowed_in_silence():
    with pytest.raises(miras.ConfigError, match="k has dtype float64 and q float32"):
        call(k=np.asarray(arrays()["k"], np.float64))


OTHERS = {
    "chunk": ({}, {"chunk": 8}, "chunk=4, and this call .* chunk=8"),
    "rule": ({}, {"rule": miras.Rule("mlp", "l2", "l2", "momentum")}, "bias 'huber'.* bias 'l2'"),
    "rate": (
        {},
        {"rule": miras.override(RULES["titans"], "algorithm.momentum=0.5")},
        r"state was made by .*\(\w+\), chunk=4, and this call",
    ),
    "refine": ({"rule": miras.Rule("matrix")}, {"refine": 1}, "of another rule, batch or refine"),
}


@pytest.mark.parametrize(("first", "second", "message"), OTHERS.values(), ids=OTHERS)
def test_a_state_made_otherwise_is_refused(first, second, message):
    rule = first.get("rule", RULES["titans"])
    W0, q, k, v, _ = random_inputs(rule, B=2, T=5, dk=4, dtype=np.float32)
    _, state = miras.scan(rule, W0, q, k, v, chunk=4)
    options = {"rule": rule, "chunk": 4, **second}
    with pytest.raises(miras.ConfigError, match=message):
        miras.scan(W0=W0, q=q, k=k, v=v, state=state, **options)
    # A state of an earlier version does not say by what it was made.
    unknown = dataclasses.replace(state, made=None)
    if "refine" not in second:
        assert miras.scan(W0=W0, q=q, k=k, v=v, state=unknown, **options)[1].made is None


@pytest.mark.parametrize("kind", RULES)
def test_a_state_of_other_dtypes_is_refused(kind):
    rule = RULES[kind]
    W0, q, k, v, _ = random_inputs(rule, B=2, T=5, dk=4, dtype=np.float32)
    _, state = miras.scan(rule, W0, q, k, v, chunk=4)
    leaves, tree = jax.tree.flatten(state)
    for n, leaf in enumerate(leaves):
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        for dtype in ("float16", "complex64", "int32") if is_float else ("float32", "complex64"):
            spoiled = jax.tree.unflatten(tree, [*leaves[:n], leaf.astype(dtype), *leaves[n + 1 :]])
            with pytest.raises(miras.ConfigError, match=rf"^state\S+ has dtype {dtype}: "):
                miras.scan(rule, W0, q, k, v, chunk=4, state=spoiled)


@pytest.mark.parametrize("chunk", [2**31, 10**400])
def test_chunks_beyond_all_positions_are_refused(chunk):
    with pytest.raises(miras.ConfigError, match=r"chunk=.* must (be below 2\^31|lie in)"):
        call(chunk=chunk)


def test_online_rules_go_on_from_each_other():
    rule = miras.Rule("matrix", "l2", "l2", "gd")
    W0, q, k, v, _ = random_inputs(rule, T=5, dk=4, dtype=np.float32)
    _, state = miras.scan(rule, W0, q, k, v, chunk=4, exact=True)
    got, _ = miras.scan(rule, W0, q, k, v, chunk=1, state=state)
    want, _ = miras.scan(rule, W0, q, k, v, chunk=3, exact=True, state=state)
    np.testing.assert_allclose(got, want, rtol=CLOSE, atol=CLOSE)


def test_a_window_of_another_length_is_refused():
    q = np.ones((1, 3, 1, 4), np.float32)
    rules = [miras.Rule({"kind": "kv", "window": w}, algorithm="nonparametric") for w in (3, 4)]
    _, state = miras.scan(rules[0], {}, q, q, q)
    with pytest.raises(miras.ConfigError, match=r"state is of another rule or batch: .* window=4"):
        miras.scan(rules[1], {}, q, q, q, state=state)


def test_more_sweeps_than_tokens_are_as_many():
    rule = miras.Rule("mlp", "l2", "l2", "gd")
    W0, *streams = random_inputs(rule, T=5, dk=4, dtype=np.float32)
    y, state = miras.scan(rule, W0, *streams, chunk=2, refine=10**9)
    want, _ = miras.scan(rule, W0, *streams, chunk=1)
    np.testing.assert_allclose(y, want, rtol=CLOSE, atol=CLOSE)
    assert len(state.sweeps) == 2
    layer = MemoryLayer(MemoryConfig(rule, chunk=2, refine=10**9), 8, 2, rngs=nnx.Rngs(0))
    assert len(layer.init_state(1).memory.sweeps) == 2


@pytest.mark.parametrize("memory", RULES)
@pytest.mark.parametrize("dtype", ["float16", "complex64", "int32"])
def test_layers_and_models_refuse_other_dtypes(memory, dtype):
    layer = MemoryLayer(MemoryConfig(RULES[memory], chunk=2), 8, 2, rngs=nnx.Rngs(0))
    with pytest.raises(miras.ConfigError, match=f"x has dtype {dtype}: {LEGAL}"):
        layer(jnp.ones((1, 3, 8), dtype))
    with pytest.raises(miras.ConfigError, match=f"has dtype {dtype}: {LEGAL}"):
        layer.init_state(1, jnp.dtype(dtype))
    with pytest.raises(miras.ConfigError, match="dtype"):
        LanguageModelConfig(dtype=dtype)  # pyright: ignore[reportArgumentType]


def test_reads_refuse_what_scans_do():
    _, state = call()
    W0, q = arrays()["W0"], arrays()["q"]
    for bad, message in ((q.astype("f2"), "q has dtype float16"), (q * np.nan, "q holds NaN")):
        with pytest.raises(miras.ConfigError, match=message):
            miras.read(RULES["titans"], W0, bad, state)


def test_nothing_is_checked_that_is_not_known():
    """Under a trace values are not known; it must not fail there."""
    given = arrays()
    program = jax.jit(lambda q: call(q=q)[0])
    assert np.isnan(program(given["q"] * np.nan)).any()
