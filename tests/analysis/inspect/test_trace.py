"""The trace's numbers: against NumPy from the papers, against the parallel model, by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.inspect.measures import MemoryAtToken, measures
from miras.analysis.inspect.trace import trace
from miras.backends.base import ScanInputs
from miras.sequence.scan import every_gate
from tests.analysis.inspect.conftest import build
from tests.conformance import oracle, oracle_retention
from tests.conformance.oracle_algorithms import newton_weight
from tests.conformance.oracle_bias import Association, gradient
from tests.conformance.oracle_memory import predict, written

IDS = np.random.default_rng(0).integers(0, 257, 11)
AXES = ("memory", "bias", "retention", "algorithm")
# Deep and matrix memories; snapshots, online and decayed gradients; attention beside; two sums.
NAMES = ("titans_lmm", "yaad_h", "titans_mac", "gated_deltanet", "rwkv7", "deltaproduct", "mesa")


def streams(model):
    """What the last memory layer writes, token by token, with W0: leaves [1, T, H, ...]."""
    graph, params = nnx.split(model, nnx.Param)

    def look(fast, seen):
        if fast.memory.rule.kinds()["memory"] == "kv":
            return None
        (q, k, v, k_write), W0 = seen.streams, fast.initial_weights()
        gates = every_gate(fast.memory.rule, ScanInputs(W0, q, k, v, seen.gates, k_write))
        return {"q": q, "k": k, "v": v, "k_write": k_write, "gates": gates}, W0

    @jax.jit
    def step(params, state, token):
        model = nnx.merge(graph, params)
        _, state, (seen,) = model.measure_memories(token[None, None], state, look)
        return state, jax.tree.map(lambda x: x[-1], seen)

    state, found, W0 = model.init_state(1), [], None
    for token in IDS:
        state, (of_token, W0) = step(params, state, token)
        found.append(of_token)
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1, dtype=np.float64), *found), W0


class Oracle:
    """One layer's memories in NumPy, from their streams alone."""

    def __init__(self, model):
        self.config, self.rule = model.config, model.config.rule
        self.parts = {axis: miras.to_dict(getattr(self.rule, axis)) for axis in AXES}
        self.call, self.W0 = streams(model)

    def weights(self, count: int, head: int):
        """Those after `count` tokens, primal."""
        W0 = {name: np.asarray(w[head], np.float64) for name, w in self.W0.items()}
        if count == 0:
            return W0
        call = jax.tree.map(lambda x: x[:, :count], self.call)
        semantics = {"chunk": self.config.chunk, "exact": self.config.exact}
        _, last = oracle.run(
            **self.parts, order=self.rule.order, read=self.rule.read, W0=self.W0, **call,
            **semantics,
        )  # fmt: skip
        A = {name: leaf[0, head] for name, leaf in last["A"].items()}
        if self.parts["algorithm"]["kind"] == "newton":
            A = newton_weight(A, self.parts["algorithm"]["ridge"])
        return W0 | A

    def token(self, t: int, head: int):
        """Keys to write along, values and gates of a token, [R, D] each."""
        k, v, along = (self.call[n][0, t, head] if self.call[n] is not None else None
                       for n in ("k", "v", "k_write"))  # fmt: skip
        many = (lambda x: x) if k.ndim == 2 else (lambda x: [x])
        return many(k), many(v), many(along) if along is not None else [None] * len(many(k))

    def surprise(self, t: int, head: int) -> float:
        online = self.config.exact or self.parts["algorithm"]["kind"] == "newton"
        W = self.weights(t if online else t - t % self.config.chunk, head)
        gates = {name: gate[0, t, head] for name, gate in self.call["gates"].items()}
        if self.rule.order == "decay_first":
            alpha = oracle_retention.decays(self.parts["memory"], self.parts["retention"], gates, W)
            W = W | {name: alpha[name] * W[name] for name in written(W)}
        each = [
            gradient(self.parts["memory"], self.parts["bias"], W, Association(k, v, a, 1.0), gates)
            for k, v, a in zip(*self.token(t, head))
        ]
        return math.sqrt(sum(np.sum(sum(g[name] for g in each) ** 2) for name in written(W)))

    def error(self, t: int, head: int, count: int) -> float:
        """Of token t at the memory after `count` tokens; a value of 0 is an erasure."""
        W, k, v = self.weights(count, head), *self.token(t, head)[:2]
        k = [k if a is None else a for k, a in zip(k, self.token(t, head)[2])]
        pairs = [(key, value) for key, value in zip(k, v) if np.any(value)]
        off = [predict(self.parts["memory"], W, key) - value for key, value in pairs]
        return math.sqrt(np.sum(np.square(off)) / np.sum(np.square([v for _, v in pairs])))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sample(0.1)
def test_each_number_is_that_of_the_oracle(name):
    found = trace(build(name), IDS)
    want, T = Oracle(build(name)), len(IDS)
    got = {measure: values[:, -1] for measure, values in found.values.items()}
    close = dict(rtol=2e-4, atol=1e-5)  # float32 over some hundred operations
    for head in range(2):
        for t in range(T):
            W = want.weights(t + 1, head)
            norm = math.sqrt(sum(np.sum(leaf**2) for leaf in written(W).values()))
            np.testing.assert_allclose(got["norm"][t, head], norm, **close)
            np.testing.assert_allclose(got["surprise"][t, head], want.surprise(t, head), **close)
            np.testing.assert_allclose(got["error"][t, head], want.error(t, head, t + 1), **close)
            np.testing.assert_allclose(got["kept"][t, head], want.error(t, head, T), **close)
    for gate, values in want.call["gates"].items():
        natural = np.exp(values) if gate.startswith("log_") else values
        natural = natural[0].reshape(T, 2, -1).mean(-1)
        np.testing.assert_allclose(got[gate.removeprefix("log_")], natural, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["titans_lmm", "titans_mac", "titans_mag", "titans_mal", "samba"])
@pytest.mark.sample(0.0)
def test_the_loss_is_the_parallel_models(name):
    model = build(name)
    graph, params = nnx.split(model, nnx.Param)
    logits, _ = jax.jit(lambda p, x: nnx.merge(graph, p)(x))(params, jnp.asarray(IDS)[None])
    logp = np.asarray(jax.nn.log_softmax(logits[0]))[np.arange(10), IDS[1:]]
    found = trace(model, IDS)
    assert math.isnan(found.loss[0])
    np.testing.assert_allclose(found.loss[1:], -logp / math.log(2), atol=1e-4)
    assert found.layers == model.config.memory_layers
    shape = (len(IDS), len(found.layers), 2)
    for values in found.values.values():
        assert values.shape == shape
        assert np.isfinite(values).all()


def test_two_tokens_by_hand():
    """A matrix with l2 bias: gradient k^T (k W - v), errors after steps of 1/2 and of 1."""
    rule = miras.Rule(memory="matrix", bias="l2", retention="none", algorithm="gd")
    W = {"w1": jnp.zeros((2, 2))}
    k, v = jnp.asarray([0.6, 0.8]), jnp.asarray([3.0, 4.0])
    half = {"w1": 0.5 * jnp.outer(k, v)}
    gates = {"lr": jnp.asarray(0.5)}
    first, pairs = measures(rule, MemoryAtToken(W, half, {}), k, v, None, gates)
    want = {"surprise": 5.0, "error": 0.5, "norm": 2.5, "lr": 0.5}
    assert {n: float(x) for n, x in first.items()} == pytest.approx(want)
    assert pairs.k.shape == pairs.v.shape == (1, 2)
    whole = {"w1": jnp.outer(k, v)}
    second, _ = measures(rule, MemoryAtToken(half, whole, {}), k, v, None, {"lr": jnp.asarray(1.0)})
    want = {"surprise": 2.5, "error": 0.0, "norm": 5.0, "lr": 1.0}
    assert {n: float(x) for n, x in second.items()} == pytest.approx(want, abs=1e-6)


@pytest.mark.slow
def test_refined_surprise_is_online_when_every_sweep_is_made():
    chunked = trace(build("titans_lmm", "refine=4"), IDS).values
    online = trace(build("titans_lmm", "chunk=1"), IDS).values
    for name, values in chunked.items():
        np.testing.assert_allclose(values, online[name], rtol=1e-3, atol=1e-5)
    assert np.abs(trace(build("titans_lmm"), IDS).values["surprise"] - online["surprise"]).max() > 0


def test_one_token_is_a_text():
    found = trace(build("titans_lmm"), IDS[:1])
    assert np.isnan(found.loss).all()
    np.testing.assert_allclose(found.values["kept"], found.values["error"], rtol=1e-6)


OTHERS = ("moneta", "memora", "atlas", "lact", "comba", "hgrn2", "ttt_mlp")


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.sample(0.3)
def test_links_windows_and_steps_by_chunk_have_finite_traces(name):
    for values in trace(build(name, "layers=1"), IDS[:5]).values.values():
        assert np.isfinite(values).all()


def test_a_model_of_attention_alone_is_refused():
    for name, words in {"transformer": (), "yaad": ("pattern=S",)}.items():
        with pytest.raises(miras.ConfigError, match="no memory with weights"):
            trace(build(name, *words), IDS)
