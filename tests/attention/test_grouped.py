"""Grouped heads: each head of keys and values serves several heads of queries (2305.13245)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.attention.cache import KVState
from miras.config import config_hash, from_dict, to_dict
from miras.layers import AttentionConfig, LayerConfig
from miras.mixers import AttentionMixer, MixerConfig
from tests.attention.attended import DEVICES, EDGE, D, both, rule, run, streams

YAAD = miras.preset("yaad")


def oracle(q, k, v, ids, window):
    """The attention of query head h to head h // (H / K), one query at a time, in float64."""
    y, group = np.zeros((*q.shape[:3], v.shape[-1])), q.shape[2] // k.shape[2]
    for b, t, h in np.ndindex(*q.shape[:3]):
        first = 0 if window is None else max(0, t - window + 1)
        seen = [s for s in range(first, t + 1) if ids[b, s] == ids[b, t]]
        scores = k[b, seen, h // group] @ q[b, t, h] / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max())
        y[b, t, h] = weights @ v[b, seen, h // group] / weights.sum()
    return y


@pytest.mark.parametrize("window", [None, 4])
def test_grouped_heads_are_those_of_the_oracle_whole_and_in_pieces(window):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 11, heads, 3)).astype(np.float32) for heads in (4, 2, 2))
    ids = np.arange(11)[None].repeat(2, 0) // 7
    want = oracle(*(np.float64(x) for x in (q, k, v)), ids, window)
    for backend in ("auto", "reference"):
        scan = functools.partial(miras.scan, rule(window), {}, backend=backend)
        y, _ = scan(q, k, v, segment_ids=ids)
        np.testing.assert_allclose(y, want, atol=1e-5)
        first, state = scan(*(x[:, :5] for x in (q, k, v)), segment_ids=ids[:, :5])
        assert isinstance(state, KVState)
        assert state.k.shape[2] == 2
        rest, _ = scan(*(x[:, 5:] for x in (q, k, v)), segment_ids=ids[:, 5:], state=state)
        np.testing.assert_allclose(np.concatenate([first, rest], axis=1), want, atol=1e-5)


@DEVICES
@pytest.mark.parametrize("persists", [True, False], ids=["persistent", "alone"])
@pytest.mark.sample(0.25)
def test_kernels_take_grouped_heads(persists, device, monkeypatch):
    """Values and gradients are those of the softmax as written over repeated keys and values."""
    q, k, v = (x[:1, :128] for x in streams())
    q = jnp.concatenate([q, 0.5 * q + 0.1], axis=2)
    rng = np.random.default_rng(1)
    front = {n: jnp.asarray(rng.normal(size=(2, 5, D)), np.float32) for n in "kv"}

    def loss(backend, streams, front):
        y = run(32, backend, EDGE[:1, :128], *streams, front)
        return jnp.sum(jnp.sin(y)), y

    want, got, calls = both(monkeypatch, device, loss, (q, k, v), front if persists else None)
    ((asked_q, asked_k, *_, y),) = calls
    assert (asked_q.shape[2], asked_k.shape[2], y is None) == (4, 2, False)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=16 * 16 * 2**-24), got, want)


KINDS = ("attention", "mag", "mal", "mac")


def _repeated(params: dict) -> dict:
    """The parameters of the plain mixer: the one kv head of a grouped one, twice."""
    made = {}
    for name, x in params.items():
        if name == "qkv" and "kv" in x:
            q, kv = (x[part]["linear"]["kernel"] for part in ("q", "kv"))
            kernel = jnp.concatenate([q, jnp.repeat(kv, 2, axis=2)], axis=1)
            made[name] = {"linear": {"kernel": kernel}}
        elif name == "kv":
            made[name] = {"kernel": jnp.repeat(x["kernel"], 2, axis=2)}
        elif isinstance(x, dict) and set(x) == {"k", "v"}:  # persistent tokens
            made[name] = {part: jnp.repeat(leaf, 2, axis=0) for part, leaf in x.items()}
        else:
            made[name] = _repeated(x) if isinstance(x, dict) else x
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sample(0.25)
@pytest.mark.usefixtures("float64")
def test_a_grouped_mixer_is_the_plain_one_with_repeated_keys_and_values(kind):
    options = {"window": 3, "persistent": 2}
    mixer = AttentionMixer(**options, kv_heads=1) if kind == "attention" else kind
    own = MixerConfig(
        mixer=mixer,  # pyright: ignore[reportArgumentType]
        rule=miras.Rule(retention="l2"),  # pyright: ignore[reportArgumentType]
        chunk=4,
        attention=AttentionConfig(segment=4, **options, kv_heads=1),
    )
    fields = {"attention": AttentionConfig(segment=4, **options)}
    fields |= {"mixer": AttentionMixer(**options)} if kind == "attention" else {}
    graph, params = nnx.split(own.build(8, 2, nnx.Rngs(0)))
    other, shapes = nnx.split(own.replace(**fields).build(8, 2, nnx.Rngs(1)))
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    nnx.replace_by_pure_dict(shapes, _repeated(nnx.to_pure_dict(params)))
    x = np.random.default_rng(0).normal(size=(2, 10, 8))
    run = jax.jit(lambda graph, params: nnx.merge(graph, params)(x)[:2], static_argnums=0)
    (y, _), (want, _) = run(graph, params), run(other, shapes)
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-10)


def test_old_configs_keep_their_form_and_hash():
    for config in (AttentionMixer(), AttentionConfig(), LayerConfig()):
        saved = {name: x for name, x in to_dict(config).items() if name != "kv_heads"}
        assert from_dict(type(config), saved) == config
    hybrid = miras.override(YAAD, "pattern=MS")
    assert config_hash(YAAD) == "cb1b72c8c38b"
    assert config_hash(miras.override(hybrid, "attention.kv_heads=2")) != config_hash(hybrid)


def test_the_cache_and_its_cost_have_the_smaller_width():
    plain = miras.override(YAAD, "pattern=A", "heads=4")
    grouped = miras.override(plain, "attention.kv_heads=1")
    flag, bytes_of = 5 * plain.layers, lambda c: c.growth_bytes
    assert bytes_of(grouped) - flag == (bytes_of(plain) - flag) / 4
    assert "1 heads of keys and values" in grouped.block("A").mixer.describe(grouped.block("A"))
    same = miras.override(miras.preset("transformer"), "layer.kv_heads=1")
    assert bytes_of(same) == bytes_of(grouped)
    assert "k and v in 1 heads" in miras.equations(same)
    split = '{"kind": "parallel", "of": ["memory", {"kind": "attention", "window": null, '
    split = miras.override(YAAD, f'M.mixer={split}"kv_heads": 1}}], "combine": "heads"}}')
    assert bytes_of(split) == bytes_of(grouped)  # two of four heads, of which one is kept


ERRORS = {
    ("pattern=A", "attention.kv_heads=3"): "model.heads=4 must be a multiple of kv_heads=3",
    ("M.mixer=mag", "attention.kv_heads=3"): "model.heads=4 must be a multiple of kv_heads=3",
    ("attention.kv_heads=0",): "attention.kv_heads=0 must be at least 1",
    ("M.mixer=mag", "layer.kv_heads=2"): "groups the queries of mixer 'memory', not those of 'mag'",
    ("layer.kv_heads=2", "layer.key_heads=2"): "groups queries that read one key and value a token",
    ("M.mixer=attention", "M.mixer.kv_heads=3"): "must be a multiple of kv_heads=3",
    (
        'M.mixer={"kind": "parallel", "combine": "heads", "of": ["memory", '
        '{"kind": "attention", "kv_heads": 4}]}',
    ): "parallel.of heads=2 must be a multiple of kv_heads=4",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items(), ids=list(ERRORS.values()))
def test_heads_that_do_not_group_raise_one_sentence(words, message):
    with pytest.raises(miras.ConfigError) as told:
        miras.override(YAAD, *words)
    assert message in str(told.value)


def test_only_attention_takes_fewer_heads_of_keys():
    q, k = jnp.ones((1, 3, 2, 4)), jnp.ones((1, 3, 1, 4))
    with pytest.raises(miras.ConfigError, match="but for an axis of terms"):
        miras.scan(miras.Rule(), {"w1": jnp.zeros((2, 4, 4))}, q, k, k)
    with pytest.raises(miras.ConfigError, match="but for heads, of which q has a multiple"):
        miras.scan(rule(None), {}, k, q, q)
