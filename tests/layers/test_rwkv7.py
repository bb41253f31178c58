"""What RWKV-7 has around its rule, against loops in float64 after arXiv 2503.14456, section 4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.costs import costs
from miras.layers import LayerConfig
from miras.layers.config import MemoryConfig
from miras.layers.memory_layer import MemoryLayer
from miras.layers.mlp import FeedForward, ShiftedMLP
from tests.models.rwkv7 import LAYER, OPTIONS

WIDTH, HEADS, HEAD = 8, 2, 4
RULE = miras.preset("rwkv7").rule
EXACT = MemoryConfig(RULE, chunk=4, exact=True)
CONFIG = LayerConfig(keys="rwkv7", **LAYER)
# Two documents, of which the first begins in the state before a cut at any place.
SEGMENTS = np.array([3] * 4 + [5] * 6)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def shifted(x, mu):
    before = np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])
    return x + mu * (before - x)


def layer_norm(x, scale, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * scale + bias


def published(p, x, first):
    """The layer of one document x [T, width]; `first` [T, H, D] are the values of the first."""

    def flat(w):
        return np.asarray(w, np.float64).reshape(w.shape[0], -1)

    mu = p["shift"]["share"]
    of = {name: shifted(x, np.asarray(share)) for name, share in mu.items()}
    heads = (len(x), HEADS, HEAD)
    r, k, v = (
        (of[n] @ flat(p["qkv"][n]["linear"]["kernel"])).reshape(heads) for n in ("q", "k", "v")
    )
    decay = p["fast"]["gates"]["kernels"]["log_decay"]
    d = np.tanh(of["gates"] @ decay["down"]) @ flat(decay["up"])
    d = d.reshape(heads) + p["fast"]["gates"]["biases"]["log_decay"]
    w = np.exp(-np.exp(-0.5) * sigmoid(-d))  # ours grows with the decay, the paper's falls
    share = p["residual"]["share"]
    s = (of["v"] @ share["down"] @ flat(share["up"])).reshape(heads) + p["residual"]["bias"]
    v = v + sigmoid(s) * (first - v)
    rate = p["keys"]["rate"]
    a = (of["rates"] @ rate["down"] @ flat(rate["up"])).reshape(heads) + p["keys"]["rate_bias"]
    a = sigmoid(a)
    kappa = k * p["keys"]["erase"]
    kappa = kappa / np.sqrt((kappa**2).sum(-1, keepdims=True) + 1e-6)
    k = k * (1 + (a - 1) * p["keys"]["mix"])
    reads, S = np.zeros(heads), np.asarray(p["fast"]["initial"]["w1"], np.float64).copy()
    for t in range(len(x)):
        for h in range(HEADS):
            erased = np.outer(a[t, h] * kappa[t, h], kappa[t, h] @ S[h])
            S[h] = w[t, h][:, None] * S[h] - erased + np.outer(k[t, h], v[t, h])
            reads[t, h] = r[t, h] @ S[h]
    y = layer_norm(reads, p["norm"]["scale"], p["norm"]["bias"], CONFIG.output_eps)
    y = y + (r * p["bonus"] * k).sum(-1, keepdims=True) * v
    gate = sigmoid(of["output"] @ p["gate"]["down"]["kernel"]) @ p["gate"]["up"]["kernel"]
    return (y.reshape(len(x), -1) * gate) @ p["out"]["kernel"]


def random(module):
    """The module and its parameters in float64, all away from their starts."""
    keys = iter(jax.random.split(jax.random.key(1), 64))
    params = jax.tree.map(
        lambda p: jnp.asarray(p, jnp.float64) + 0.3 * jax.random.normal(next(keys), p.shape),
        nnx.to_pure_dict(nnx.state(module, nnx.Param)),
    )
    nnx.update(module, params)
    return module, jax.tree.map(np.asarray, params)


@pytest.fixture
def layer(float64):
    del float64
    return random(MemoryLayer(EXACT, WIDTH, HEADS, config=CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 10, WIDTH)), rng.normal(size=(2, 10, HEADS, HEAD))


run = nnx.jit(lambda layer, x, **options: layer(x, **options)[:2])


def test_documents_and_cuts_are_the_published_layer(layer, inputs):
    module, p = layer
    x, values = inputs
    parts = (slice(0, 4), slice(4, 10))
    want = [
        np.concatenate([published(p, row[s], first[s]) for s in parts])
        for row, first in zip(x, values)
    ]
    ids = np.broadcast_to(SEGMENTS, (2, 10))
    y, _ = run(module, x, segment_ids=ids, values=values)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-10)
    state, pieces = None, []
    for cut in (slice(0, 3), slice(3, 4), slice(4, 7), slice(7, 10)):
        y, state = run(
            module, x[:, cut], segment_ids=ids[:, cut], values=values[:, cut], state=state
        )
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces, 1), want, rtol=1e-9, atol=1e-10)


def test_padding_is_as_if_it_were_not_there(layer, inputs):
    module, p = layer
    x, values = inputs
    mask = np.ones((2, 10), bool)
    mask[0, [0, 1, 5]] = mask[1, [3, 9]] = False
    y, state = run(module, x, mask=mask, values=values)
    for row in range(2):
        here = mask[row]
        want = published(p, x[row, here], values[row, here])
        np.testing.assert_allclose(y[row, here], want, rtol=1e-9, atol=1e-10)
        assert not np.any(y[row, ~here])
        np.testing.assert_array_equal(state.shift.inputs[row, 0], x[row, here][-1])


def test_the_values_of_the_first_layer_are_its_own(layer, inputs):
    """So that its mix of them changes nothing."""
    module, p = layer
    x, _ = inputs
    mask = np.ones((2, 10), bool)
    mask[0, 4] = False
    values = module.first_values(x, mask=mask)
    kernel = p["qkv"]["v"]["linear"]["kernel"].reshape(WIDTH, -1)
    want = shifted(x[1], p["shift"]["share"]["v"]) @ kernel
    np.testing.assert_allclose(values[1].reshape(10, -1), want, rtol=1e-12, atol=1e-13)
    assert not np.any(values[0, 4])
    y, _ = run(module, x, mask=mask, values=values)
    own, _ = run(module, x, mask=mask)
    np.testing.assert_allclose(y, own, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_shifted_mlp_reads_the_token_before(inputs):
    module, p = random(ShiftedMLP(WIDTH, FeedForward(WIDTH, 16, "squared_relu", nnx.Rngs(0))))
    x, _ = inputs

    def channel(rows):
        mixed = shifted(rows, p["shift"]["share"]["up"])
        hidden = np.maximum(mixed @ p["mlp"]["up"]["kernel"], 0) ** 2
        return hidden @ p["mlp"]["down"]["kernel"]

    ids = np.broadcast_to(SEGMENTS, (2, 10))
    want = [np.concatenate([channel(row[:4]), channel(row[4:])]) for row in x]
    state, pieces = None, []
    for cut in (slice(0, 3), slice(3, 4), slice(4, 9), slice(9, 10)):
        y, state = module(x[:, cut], segment_ids=ids[:, cut], state=state)
        pieces.append(y)
    np.testing.assert_allclose(np.concatenate(pieces, 1), want, rtol=1e-10, atol=1e-12)
    mask = np.arange(10) % 3 != 1
    y, state = module(x, mask=np.broadcast_to(mask, (2, 10)))
    np.testing.assert_allclose(y[0, mask], channel(x[0, mask]), rtol=1e-10, atol=1e-12)
    assert not np.any(y[:, ~mask])
    more, _ = module(x[:, :1], state=state)
    want = channel(np.concatenate([x[0, mask], x[0, :1]]))[-1]
    np.testing.assert_allclose(more[0, 0], want, rtol=1e-10, atol=1e-12)


def test_a_bounded_decay_starts_where_it_is_told():
    config = LayerConfig(decay_bound=0.5, gate_activation="tanh")
    rule = miras.preset("kda").rule
    layer = MemoryLayer(MemoryConfig(rule, chunk=4), WIDTH, HEADS, config=config, rngs=nnx.Rngs(0))
    gates = layer.fast.gates(jnp.ones((1, 3, WIDTH)))
    np.testing.assert_allclose(np.exp(gates["log_decay"]), 0.99, rtol=1e-5)
    layer.fast.gates.biases["log_decay"][...] = jnp.full((HEADS, HEAD), -50.0)
    gates = layer.fast.gates(jnp.ones((1, 3, WIDTH)))
    np.testing.assert_allclose(gates["log_decay"], -0.5, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_a_bonus_of_plain_keys_and_of_grouped_ones(inputs):
    """On plain keys it is what a memory of one token reads, times u, after the norm."""
    for grouped in (None, 1):
        config = LayerConfig(conv=0, qk_norm=None, bonus=True, output_gate=False, kv_heads=grouped)
        rule = miras.preset("gla").rule
        made = MemoryLayer(
            MemoryConfig(rule, chunk=4), WIDTH, HEADS, config=config, rngs=nnx.Rngs(0)
        )
        module, p = random(made)
        x, _ = inputs
        with_it, _ = run(module, x)
        module.bonus[...] = jnp.zeros((HEADS, HEAD))
        without, _ = run(module, x)
        if grouped is None:
            kernel = p["qkv"]["linear"]["kernel"]
            q, k, v = np.moveaxis(np.einsum("btw,wshd->btshd", x, kernel), 2, 0)
        else:
            q = np.einsum("btw,whd->bthd", x, p["qkv"]["q"]["linear"]["kernel"][:, 0])
            kv = np.einsum("btw,wshd->btshd", x, p["qkv"]["kv"]["linear"]["kernel"])
            k, v = kv[:, :, 0], kv[:, :, 1]
        own = (q * p["bonus"] * k).sum(-1, keepdims=True) * v
        want = own.reshape(*x.shape[:2], -1) @ p["out"]["kernel"]
        np.testing.assert_allclose(with_it - without, want, rtol=1e-9, atol=1e-10)


def test_costs_count_the_values_that_are_computed_twice():
    plain = miras.override(miras.preset("rwkv7"), "layer.conv=0", "layers=3", "layer.gate_rank=4")
    mixed = miras.override(plain, "layer.value_residual=true")
    a, b = costs(plain), costs(mixed)
    width = plain.width
    assert b.parameters - a.parameters == 3 * (2 * 4 * width + width)
    assert b.flops - a.flops == 2 * (b.parameters - a.parameters) + 2 * width * width
    assert b.state_bytes == a.state_bytes
    shifted = miras.override(
        mixed, "layer.token_shift=true", "channel=mlp", "channel.token_shift=true"
    )
    tokens = 3 * 2 * (4 * width + 4)  # a token and its segment for each of the two halves
    assert costs(shifted).state_bytes - b.state_bytes == tokens


def test_equations_tell_what_is_around_the_rule():
    told = miras.equations(miras.override(miras.preset("rwkv7"), *OPTIONS))
    for words in (
        "x is x_t + μ (x_{t-1} - x_t)",
        "v_t + s_t (v¹_t - v_t)",
        "LayerNorm per head, plus sum_i u_i q_i k_i times v_t",
        "times (sigmoid(x A_g) B_g, of rank 5)",
        "log alpha_t is -0.606531 times the sigmoid of a projection",
        "by rank 3",
    ):
        assert words in told, told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["deltaproduct", "layer.token_shift=true"], "takes one key and one value a token"),
        (["rwkv7", "layer.decay_bound=0"], r"layer\.decay_bound=0\.?0? must be positive"),
        (["deltanet", "layer.decay_bound=0.5"], "bounds decays of a projection"),
        (["mamba2", "layer.bonus=true", "layer.output_norm=false"], "needs layer.output_norm=true"),
        (["rwkv7", "layer.value_rank=0"], "layer.value_rank=0 must be at least 1"),
        (["titans_mag", "layer.value_residual=true"], "are of mixer 'memory', not of 'mag'"),
        (["rwkv7", "pattern=S M", "layer.value_residual=true"], "whose block S does not have it"),
        (
            [
                *("rwkv7", "pattern=M N", "blocks.N=rwkv7", "blocks.N.heads=2", "heads=4"),
                *("M.layer.value_residual=true", "blocks.N.layer.value_residual=true"),
            ],
            "2 heads of width 64, with those of the first layer's block M, 4 heads of width 32",
        ),
    ],
)
def test_what_does_not_fit_is_told(words, told):
    with pytest.raises(miras.ConfigError, match=told):
        miras.override(miras.preset(words[0]), *words[1:])
