"""Properties of `miras.scan` that hold for every rule: splits, traces, dtypes, errors."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.config import to_dict
from miras.testing.inputs import scan_with_loss
from tests import rules
from tests.conformance import oracle
from tests.tolerances import tolerance

CLOSE = tolerance(np.float32, 11, 2)  # over the tokens

RULES = {
    "linear": miras.Rule("matrix", "dot", "none", "gd"),
    "delta": miras.Rule("matrix", "l2", "l2", "gd", order="decay_first"),
    "titans": miras.Rule("mlp", "l2", "l2", "momentum"),
    "yaad": miras.Rule("mlp", "huber", "l2", "gd"),
    "moneta": miras.Rule("mlp", "lp", {"kind": "lq", "link_every": "chunk"}, "gd"),
    "memora": miras.Rule("mlp", "l2", {"kind": "kl", "link_every": "chunk"}, "momentum"),
    "memora_token": miras.Rule("vector", "l2", "kl", "gd"),
}
by_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def cut(tree, start, stop):
    return jax.tree.map(lambda x: x[:, start:stop], tree)


@by_rule
@pytest.mark.parametrize("cuts", [(3, 5, 6, 10), (4, 8)])
@pytest.mark.usefixtures("float64")
@pytest.mark.sample(0.2)
def test_any_split_gives_the_whole(rule, cuts):
    W0, *streams = rules.inputs(rule)
    whole, end = miras.scan(rule, W0, *streams, chunk=4)
    state, outputs = None, []
    for start, stop in zip((0, *cuts), (*cuts, 11)):
        y, state = miras.scan(rule, W0, *cut(streams, start, stop), chunk=4, state=state)
        outputs.append(y)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-12, atol=1e-12)
    for name in end.A:
        np.testing.assert_allclose(state.A[name], end.A[name], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(state.position, end.position)


@functools.cache
def packed_run(name, chunk):
    """One compiled program for any segments."""
    return jax.jit(
        lambda W0, streams, ids: miras.scan(
            RULES[name], W0, *streams, chunk=chunk, segment_ids=ids
        )[0]
    )


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(
    name=st.sampled_from(["delta", "memora"]),
    chunk=st.sampled_from([1, 3, 4]),
    starts=st.sets(st.integers(1, 11)),
)
def test_segments_anywhere_equal_separate_documents(name, chunk, starts):
    rule, edges = RULES[name], [0, *sorted(starts), 12]
    parts = {a: to_dict(getattr(rule, a)) for a in ("memory", "bias", "retention", "algorithm")}
    with jax.enable_x64(True):
        W0, *streams = rules.inputs(rule, B=1, T=12, H=1, dk=3)
        ids = np.repeat(np.arange(len(edges) - 1), np.diff(edges))[None]
        packed = packed_run(name, chunk)(W0, streams, ids)
    q, k, v, gates = streams
    for a, b in itertools.pairwise(edges):
        alone = dict(zip(("q", "k", "v", "gates"), cut([q, k, v, gates], a, b)))
        want, _ = oracle.run(**parts, order=rule.order, W0=W0, **alone, chunk=chunk)
        np.testing.assert_allclose(packed[:, a:b], want, rtol=1e-9, atol=1e-9)


@by_rule
@pytest.mark.usefixtures("float64")
@pytest.mark.sample(0.2)
def test_a_segment_that_goes_on_in_the_next_call_is_not_reset(rule):
    W0, *streams = rules.inputs(rule)
    ids = jnp.asarray([[0, 0, 0, 5, 5, 5, 5, 5, 7, 7, 7]] * 2)
    whole, _ = miras.scan(rule, W0, *streams, chunk=4, segment_ids=ids)
    first, state = miras.scan(rule, W0, *cut(streams, 0, 5), chunk=4, segment_ids=ids[:, :5])
    second, _ = miras.scan(
        rule, W0, *cut(streams, 5, 11), chunk=4, segment_ids=ids[:, 5:], state=state
    )
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, rtol=1e-12, atol=1e-12)


@by_rule
@pytest.mark.usefixtures("float64")
@pytest.mark.sample(0.2)
def test_the_promise_of_aligned_segments_changes_nothing_when_kept(rule):
    W0, *streams = rules.inputs(rule)
    ids = jnp.asarray([[0] * 4 + [1] * 4 + [2] * 3, [5] * 8 + [6] * 3])
    want, end, _ = scan_with_loss(rule, W0, *streams, chunk=4, segment_ids=ids)
    got, state, _ = scan_with_loss(
        rule, W0, *streams, chunk=4, segment_ids=ids, segments_at_chunks=True
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(state.A["w1"], end.A["w1"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(state.segment, end.segment)


@pytest.fixture
def compilations():
    """Names of the programs compiled while a test runs."""
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return compiled


@by_rule
@pytest.mark.sample(0.2)
def test_nothing_is_compiled_for_a_second_call(rule, compilations):
    W0, *streams = jax.tree.map(jnp.asarray, rules.inputs(rule, dtype=np.float32))
    state = None
    for call in range(3):
        before = len(compilations)
        _, state = miras.scan(rule, W0, *streams, chunk=4, state=state)
        # The second call is the first one that goes on from a state; the third is like it.
        assert (len(compilations) > before) == (call < 2)


@by_rule
@pytest.mark.sample(0.2)
def test_bfloat16_inputs_keep_a_float32_state(rule):
    W0, q, k, v, gates = rules.inputs(rule, dtype=np.float32)
    exact, _ = miras.scan(rule, W0, q, k, v, gates, chunk=4)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    y, state = miras.scan(rule, W0, *low, gates, chunk=4)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state.A)} == {jnp.dtype("float32")}
    scale = float(np.abs(exact).max())
    # q, k and v each carry a relative rounding of 2^-9, and y is rounded once more.
    np.testing.assert_allclose(y.astype(np.float32), exact, atol=8 * 2**-8 * scale)


def test_gates_not_given_are_held_at_the_config():
    rule = miras.Rule(
        "matrix", {"kind": "huber", "delta": 0.7}, {"kind": "l2", "decay": 0.8},
        {"kind": "momentum", "lr": 0.05, "momentum": 0.6},
    )  # fmt: skip
    W0, q, k, v, _ = rules.inputs(rule, dtype=np.float32)
    full = lambda x: np.full(q.shape[:3], x, np.float32)  # noqa: E731
    given = {
        "lr": full(0.05),
        "log_decay": full(np.log(0.8)),
        "log_momentum": full(np.log(0.6)),
        "threshold": full(0.7),
    }
    y, _ = miras.scan(rule, W0, q, k, v, chunk=4)
    want, _ = miras.scan(rule, W0, q, k, v, given, chunk=4)
    np.testing.assert_allclose(y, want, rtol=CLOSE, atol=CLOSE)


def test_a_constant_decay_spreads_over_heads_as_in_retnet():
    rule = miras.preset("retnet").rule
    (gate,) = rule.retention.gates()
    np.testing.assert_allclose(np.exp(gate.constant(4)), 1 - 2.0 ** (-5 - np.arange(4)))


@pytest.mark.usefixtures("float64")
def test_total_forgetting_is_finite():
    rule = RULES["titans"]
    W0, q, k, v, gates = rules.inputs(rule)
    gates["log_decay"] = np.full_like(gates["log_decay"], -np.inf)
    gates["log_momentum"] = np.full_like(gates["log_momentum"], -np.inf)
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=q.shape[:2]) > 0.4)
    _, half = miras.scan(rule, W0, *cut([q, k, v, gates], 0, 3), chunk=4)

    def total(k, state):
        y, _ = miras.scan(rule, W0, q, k, v, gates, chunk=4, mask=mask, state=state)
        return jnp.sum(y**2)

    for state in (None, half):
        value, grads = jax.value_and_grad(total)(jnp.asarray(k), state)
        assert np.isfinite(value)
        assert np.isfinite(grads).all()


BAD = {
    "chunk": (dict(chunk=0), "chunk=0 must be at least 1"),
    "backend": (dict(backend="xl"), "did you mean 'xla'"),
    "refine": (dict(refine=-1), "refine=-1 must be a whole number of at least 0"),
    "exact": (dict(exact=True), "exact=True has a closed form for a linear memory"),
    "both": (dict(refine=1, exact=True), "refine=1 approaches the online rule, .*: use refine=0"),
    "k_write": (dict(k_write=np.ones((2, 11, 2, 4), np.float32)), "k_write"),
    "mask type": (dict(mask=np.ones((2, 11))), "mask has dtype .* must be bool"),
    "segments": (dict(segment_ids=np.ones((2, 11))), "segment_ids has dtype .* integer"),
    "mask": (dict(mask=np.ones((2, 3), bool)), r"mask has shape \(2, 3\): it must be \[B, T\]"),
    "gate": (dict(gates={"log_decya": 0}), "unknown gate .* did you mean 'log_decay'"),
    "gate shape": (dict(gates={"lr": np.ones((2, 11))}), r"gate 'lr' has shape \(2, 11\)"),
    "q": (dict(q=np.ones((2, 11, 4), np.float32)), r"q has shape \(2, 11, 4\): it must be"),
    "dtype": (dict(v=np.ones((2, 11, 2, 4), np.int32)), "v has dtype int32: use float32"),
    "W0": (dict(W0={"w1": np.ones((2, 4, 4))}), "W0 has leaves .* needs"),
    "empty": (dict(q=np.ones((2, 0, 2, 4)), k=np.ones((2, 0, 2, 4)), v=np.ones((2, 0, 2, 4))),
              "T must be at least 1"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_clear_sentence(change, message):
    rule = RULES["titans"]
    W0, q, k, v, gates = rules.inputs(rule, dtype=np.float32)
    call = dict(W0=W0, q=q, k=k, v=v, gates=gates, chunk=4) | change
    with pytest.raises(miras.ConfigError, match=message):
        miras.scan(rule, **call)


OUT_OF_RANGE = {
    "lr": (-1.0, "gate 'lr' holds -1: it must be finite and at least 0"),
    "log_decay": (0.99, "gate 'log_decay' holds 0.99: it must be at most 0, as the log"),
    "log_momentum": (np.nan, "gate 'log_momentum' holds nan"),
    "threshold": (0.0, "gate 'threshold' holds 0: it must be above 0"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_gate_out_of_its_range_is_refused(name):
    value, message = OUT_OF_RANGE[name]
    rule = miras.Rule("matrix", "huber", "l2", "momentum")
    W0, q, k, v, gates = rules.inputs(rule, dtype=np.float32)
    miras.scan(rule, W0, q, k, v, gates, chunk=4)
    bad = gates[name].copy()
    bad[0, 3, 1] = value
    with pytest.raises(miras.ConfigError, match=message):
        miras.scan(rule, W0, q, k, v, gates | {name: bad}, chunk=4)


def test_data_dependent_gates_are_given_together_or_not_at_all():
    rule = miras.Rule("matrix", "huber", "l2", "momentum")
    W0, q, k, v, gates = rules.inputs(rule, dtype=np.float32)
    for name in gates:
        fewer = {other: gates[other] for other in gates if other != name}
        with pytest.raises(miras.ConfigError, match=f"gate '{name}' is missing: give"):
            miras.scan(rule, W0, q, k, v, fewer, chunk=4)
    held = {
        gate.name: np.broadcast_to(gate.constant(2), (2, 11, 2)).astype(np.float32)
        for gate in rule.gates
    }
    of_config, _ = miras.scan(rule, W0, q, k, v, chunk=4)
    np.testing.assert_allclose(of_config, miras.scan(rule, W0, q, k, v, held, chunk=4)[0], 1e-6)


WRONG_KIND = {
    "rule": (dict(rule=miras.preset("yaad")), "rule is a LanguageModelConfig: give a miras.Rule"),
    "W0": (dict(W0=None), "W0 is a NoneType: give a dict"),
    "gates": (dict(gates=[1.0]), "gates is a list: give a dict"),
    "state": (dict(state=(1, 2)), "state is a tuple: give the one that miras.scan returned"),
    "exact": (dict(exact="yes"), "exact='yes' is not true or false"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), WRONG_KIND.values(), ids=WRONG_KIND)
def test_an_argument_of_another_kind_is_refused(change, message):
    W0, q, k, v, gates = rules.inputs(RULES["titans"], dtype=np.float32)
    call = dict(rule=RULES["titans"], W0=W0, q=q, k=k, v=v, gates=gates, chunk=4) | change
    with pytest.raises(miras.ConfigError, match=message):
        miras.scan(**call)


def test_a_state_from_further_into_a_chunk_is_refused():
    rule = RULES["titans"]
    W0, *streams = rules.inputs(rule, dtype=np.float32)
    _, state = miras.scan(rule, W0, *streams, chunk=16)
    with pytest.raises(miras.ConfigError, match="state is 11 tokens into a chunk, but chunk=4"):
        miras.scan(rule, W0, *streams, chunk=4, state=state)


@pytest.mark.parametrize("memory", ["matrix", "vector", "mlp"])
@pytest.mark.parametrize("retention", ["rows", {"kind": "lq", "form": "mirror"}])
def test_memories_that_start_at_zero_start_elsewhere_where_that_is_dead(memory, retention):
    rule = miras.Rule(memory, "l2", retention)
    q, k, v = np.random.default_rng(0).normal(size=(3, 1, 8, 2, 4)).astype(np.float32)

    def objective(raw):
        return jnp.sum(miras.scan(rule, rule.constrain(raw), q, k, v, chunk=4)[0] ** 2)

    gradient = jax.grad(objective)(rule.init_raw(jax.random.key(0), 4, heads=2))
    assert all(jnp.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(gradient))


def test_a_state_of_another_rule_is_refused():
    W0, *streams = rules.inputs(RULES["titans"], dtype=np.float32)
    _, state = miras.scan(RULES["titans"], W0, *streams, chunk=4)
    W0, *streams = rules.inputs(RULES["yaad"], dtype=np.float32)
    with pytest.raises(miras.ConfigError, match="state is of another rule, batch or refine"):
        miras.scan(RULES["yaad"], W0, *streams, chunk=4, state=state)
