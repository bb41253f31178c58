"""A block of each architecture against NumPy written from the papers, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.models.blocks import Block, BlockInputs
from tests.conformance import oracle_linear, oracle_presets
from tests.models import oracle_titans as oracle
from tests.tolerances import tolerance

pytestmark = pytest.mark.usefixtures("float64")

SMALL = ("layers=2", "width=8", "heads=2", "chunk=4", "attention.segment=8")
ORACLES = {
    "lmm": oracle.lmm,
    "mac": oracle.mac,
    "mag": oracle.mag,
    "mal": oracle.mal,
    "S": oracle.window_attention,
    "A": oracle.window_attention,
}


def made(kind: str, persistent: int, window: int = 5):
    """The block of an architecture, or of a letter of the pattern."""
    options = (*SMALL, f"attention.persistent={persistent}", f"attention.window={window}")
    letter = kind if kind in "SA" else "M"
    name = f"architecture={kind if letter == 'M' else 'lmm'}"
    config = miras.override(miras.preset("titans_lmm"), *options, name)
    return config, *moved(Block(config, letter, nnx.Rngs(0)))


def moved(block: Block):
    """Its graph, and its parameters, all off their start, in float64."""
    graph, params = nnx.split(block)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))

    def move(p):
        return jnp.asarray(p, jnp.float64) + 0.1 * jax.random.normal(next(keys), p.shape)

    return graph, jax.tree.map(move, params)


@functools.partial(jax.jit, static_argnums=0)
def run(graph, params, x, state=None, ids=None, mask=None):
    block = nnx.merge(graph, params)
    return block(x, state, BlockInputs(ids, mask), 0.0, segments_at_chunks=False, health=False)[:2]


@pytest.mark.parametrize("persistent", [0, 3])
@pytest.mark.parametrize("kind", ORACLES)
@pytest.mark.sample(0.3)
def test_a_block_is_the_papers_equations(kind, persistent):
    config, graph, params = made(kind, persistent)
    x = np.random.default_rng(0).normal(size=(2, 21, 8))
    got, _ = run(graph, params, x)
    plain = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    options = {"window": 5 if kind == "S" else 21}
    if kind not in "SA":
        options = {"chunk": 4, "max_lr": config.rule.algorithm.max_lr}
        if kind != "lmm":
            options |= {"window": 5, "segment": 8}
    for row in range(2):
        want = oracle.block(plain, x[row], ORACLES[kind], **options)
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


def gated_delta(W0, q, k, v, gates, chunk):
    """S_t = S_{t-1} (a_t (I - b_t k_t k_t^T)) + b_t v_t k_t^T, o_t = S_t q_t (2412.06464)."""
    del chunk
    y = np.zeros(v.shape)
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        S = W0["w1"][h].T
        for t in range(q.shape[1]):
            query, key, value = (x[b, t, h] for x in (q, k, v))
            decay, rate = np.exp(gates["log_decay"][b, t, h]), gates["lr"][b, t, h]
            S = S @ (decay * (np.eye(len(key)) - rate * np.outer(key, key)))
            S = S + rate * np.outer(value, key)
            y[b, t, h] = S @ query
    return y, {"w1": S.T}


def memora(W0, q, k, v, gates, chunk):
    """Its start is learned in logs."""
    W0 = {name: np.exp(w) / np.exp(w).sum(axis=-2, keepdims=True) for name, w in W0.items()}
    return oracle_presets.memora(W0, q, k, v, gates, chunk, link_every="chunk")


def mamba2(W0, q, k, v, gates, chunk):
    """a_t = exp(-A dt_t) (2405.21060, section 7)."""
    gates = gates | {"log_decay": gates["log_decay"] * gates["lr"]}
    return oracle_linear.mamba2(W0, q, k, v, gates, chunk)


# Of each preset its recurrence, the activation of q, k and v, and what the recurrence fixes; yaad's
# threshold lies where some residuals pass it and some do not.
RULES = {
    "gated_deltanet": (gated_delta, oracle.silu, ()),
    "mamba2": (mamba2, oracle.silu, ()),
    "memora": (memora, None, ("rule.memory.eps=1e-6", "rule.retention.scale=1")),
    "yaad": (oracle_presets.yaad, None, ("rule.memory.eps=1e-6", "rule.bias.delta=3")),
    "moneta": (
        functools.partial(oracle_presets.moneta, link_every="chunk"),
        None,
        ("rule.memory.eps=1e-6",),
    ),
}


def convolved(p, x):
    """[T, width] to [T, streams, H, D]: linear, and y_t = sum_j taps_j z_{t-j}."""
    taps = p["conv"]["kernel"]
    z = np.tensordot(x, p["linear"]["kernel"], axes=1)
    return np.stack(
        [sum(taps[j] * z[t - j] for j in range(min(len(taps), t + 1))) for t in range(len(z))]
    )


def layer(p, x, *, recurrence, activation, max_lr):
    """MIRAS (2504.13173), section 5.3: a rule's memory between projections, norm and gate."""
    mixed = convolved(p["qkv"], x)
    mixed = activation(mixed) if activation else mixed
    q, k, v = oracle.l2_norm(mixed[:, 0]), oracle.l2_norm(mixed[:, 1]), mixed[:, 2]
    made = p["fast"]["gates"]
    logits = {n: x @ made["kernels"][n]["kernel"] + made["biases"][n] for n in made["kernels"]}
    squash = {
        "lr": lambda z: max_lr * oracle.sigmoid(z),
        "log_decay": lambda z: np.log(oracle.sigmoid(z)),
        "threshold": lambda z: np.log1p(np.exp(z)),
    }
    gates = {n: squash[n](z)[None] for n, z in logits.items()}
    y, _ = recurrence(p["fast"]["initial"], q[None], k[None], v[None], gates, 4)
    y = oracle.rms_norm(p["norm"], y[0], eps=1e-3).reshape(len(x), -1)
    return (y * oracle.silu(x @ p["gate"]["kernel"])) @ p["out"]["kernel"]


@pytest.mark.parametrize("name", ["transformer++", *RULES])
@pytest.mark.sample(0.3)
def test_a_block_around_another_rule_is_the_papers_equations(name):
    recurrence, activation, fixed = RULES.get(name, (None, None, ()))
    config = miras.override(miras.preset(name), *SMALL, *fixed)
    graph, params = moved(Block(config, "M", nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(2, 21, 8))
    got, _ = run(graph, params, x)
    plain = jax.tree.map(np.asarray, nnx.to_pure_dict(params))
    for row in range(2):
        if recurrence is None:
            want = oracle.block(plain, x[row], oracle.window_attention, window=21)
        else:
            options = {"recurrence": recurrence, "activation": activation}
            options["max_lr"] = config.rule.algorithm.max_lr
            want = oracle.block(plain, x[row], layer, **options)
        np.testing.assert_allclose(got[row], want, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ORACLES)
@pytest.mark.sample(0.0)
def test_a_call_split_anywhere_is_the_whole(kind):
    """Inside a chunk, inside a segment, at their edges, and token by token."""
    _, graph, params = made(kind, 2)
    x = np.random.default_rng(1).normal(size=(2, 27, 8))
    want, _ = run(graph, params, x)
    for cuts in ((3, 8, 16, 21), tuple(range(1, 27))):
        state, parts = None, []
        for first, last in zip((0, *cuts), (*cuts, 27)):
            y, state = run(graph, params, x[:, first:last], state)
            parts.append(y)
        np.testing.assert_allclose(np.concatenate(parts, 1), want, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ORACLES)
@pytest.mark.sample(0.0)
def test_documents_anywhere_are_separate_and_masked_tokens_are_not_seen(kind):
    _, graph, params = made(kind, 2)
    x, parts = np.random.default_rng(2).normal(size=(2, 27, 8)), []
    for edge in (16, 11):  # at a segment's edge, and inside one
        ids = np.where(np.arange(27) < edge, 1, 2)[None].repeat(2, 0)
        got, _ = run(graph, params, x, None, ids)
        first, _ = run(graph, params, x[:, :edge])
        second, _ = run(graph, params, x[:, edge:])
        np.testing.assert_allclose(got, np.concatenate([first, second], 1), rtol=1e-9, atol=1e-9)
    own = np.ones(27, bool)
    own[9:25] = False  # 11 tokens are there
    want, after = run(graph, params, x[:, own])
    other = np.where(own[None, :, None], x, np.nan)
    got, state = run(graph, params, other, None, None, own[None].repeat(2, 0))
    np.testing.assert_allclose(got[:, own], want, rtol=1e-9, atol=1e-9)
    for before in (state, after):
        parts.append(run(graph, params, x[:, :11], before)[0])
    np.testing.assert_allclose(*parts, rtol=1e-9, atol=1e-9)


def test_the_last_read_follows_each_token_and_the_retrieval_does_not():
    """Where the printed MAC would leak: a later token of the segment changes nothing before it."""
    _, graph, params = made("mac", 2)
    x = np.random.default_rng(3).normal(size=(1, 16, 8))
    base, _ = run(graph, params, x)
    for t in (1, 5, 9, 15):
        other = x.copy()
        other[:, t] += 1.0
        changed, _ = run(graph, params, other)
        np.testing.assert_array_equal(changed[:, :t], base[:, :t])
        assert np.abs(changed[:, t:] - base[:, t:]).max(axis=(0, 2)).min() > 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["yaad", "moneta", "memora", "gated_deltanet", "mesa", "rwkv7"])
@pytest.mark.sample(0.1)
def test_any_rule_can_be_the_memory_of_mac(rule):
    config = miras.override(miras.preset(rule), *SMALL, "architecture=mac", "attention.window=8")
    graph, params = moved(Block(config, "M", nnx.Rngs(0)))
    x = np.random.default_rng(4).normal(size=(2, 19, 8))
    want, _ = run(graph, params, x)
    _, state = run(graph, params, x[:, :10])
    got, _ = run(graph, params, x[:, 10:], state)
    assert np.isfinite(want).all()
    scale = max(1.0, float(np.abs(want).max()))
    # Terms of the longest sum: the tokens times the width.
    np.testing.assert_allclose(got, want[:, 10:], atol=tolerance(np.float64, 19 * 8, 64) * scale)
