"""Presets as language models: causality, resets, masks, decoding, starting point."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.models import LanguageModel, decode_step, generate, prefill
from miras.presets import PRESETS
from tests import selection
from tests.rules import RULES, labels
from tests.tolerances import tolerance

SMALL = ("layers=2", "width=32", "heads=2", "vocab=29", "chunk=4")


@functools.cache
def build(name: str, *overrides: str) -> LanguageModel:
    config = miras.preset(name)
    if "segment" in vars(config.mixer):  # shorter than the calls below
        overrides = ("architecture.segment=4", *overrides)
    if "shard" in vars(config.mixer):
        short = "global_chunk=4", "local_chunks=[2]", "shard=4"
        overrides = (*(f"architecture.{option}" for option in short), *overrides)
    model = LanguageModel(miras.override(config, *SMALL, *overrides), nnx.Rngs(0))
    # Parameters that start at zero would hide a leak through them.
    graph, params = nnx.split(model)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda p: p + 0.02 * jax.random.normal(next(keys), p.shape), params)
    return nnx.merge(graph, params)


def tokens(T: int, B: int = 2, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 29, (B, T)))


@functools.partial(jax.jit, static_argnums=0)
def _forward(graph, params, x, options):
    return nnx.merge(graph, params)(x, **options)


def forward(model, x, **options):
    """Logits and state, compiled once for each model and shape."""
    return _forward(*nnx.split(model), x, options)


def close(got, want):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(got, want, atol=tolerance(np.float32, 1024, 16) * scale)


def layers(name):
    """What of a preset a model depends on: its rule's labels, and its other layers."""
    config = miras.preset(name)
    return {*labels(name), ("architecture", config.architecture), *config.letters}


# Every member and every kind of layer; `make exhaustive` runs the other presets.
MODELS = selection.covering({name: layers(name) for name in PRESETS}, share=0.3) | {"yaad"}
PARAMS = [
    pytest.param(
        name,
        marks=[pytest.mark.slow] * (name != "yaad")
        + [pytest.mark.exhaustive] * (name not in MODELS),
    )
    for name in PRESETS
]


# Of the module, so that the tests of one preset run one after the other and compile it once.
@pytest.fixture(scope="module", params=PARAMS)
def name(request):
    return request.param


@pytest.mark.sample(0.06)
def test_no_logit_sees_a_later_token(name):
    model, x = build(name), tokens(14)
    base, _ = forward(model, x)
    for t in (1, 4, 7, 13):
        changed, _ = forward(model, x.at[:, t].set((x[:, t] + 7) % 29))
        np.testing.assert_array_equal(changed[:, :t], base[:, :t])
        assert not np.array_equal(changed[:, t:], base[:, t:])


@pytest.mark.sample(0.06)
def test_packed_segments_equal_separate_documents(name):
    model, x = build(name), tokens(14)
    packed, _ = forward(model, x, segment_ids=jnp.asarray([[1] * 7 + [2] * 7] * 2))
    close(packed[:, :7], forward(model, x[:, :7])[0])
    close(packed[:, 7:], forward(model, x[:, 7:])[0])


OWN = np.array([[0, 0, 1, 1, 1, 0, 1, 0, 1, 1, 0, 0, 0, 1], [1] * 7 + [0] * 7], bool)


@pytest.mark.sample(0.06)
def test_masked_tokens_are_not_there(name):
    model, x = build(name), tokens(14)
    logits, state = forward(model, jnp.where(OWN, x, 99), mask=OWN)  # of any id
    want, after = forward(model, jnp.stack([row[own] for row, own in zip(x, OWN)]))
    close(logits[OWN].reshape(want.shape), want)
    assert not np.any(logits[~OWN])
    for t in range(2):
        logits, state = decode_step(model, x[:, t], state)
        want, after = decode_step(model, x[:, t], after)
        close(logits, want)


@pytest.mark.sample(0.06)
def test_decoding_equals_the_parallel_forward(name):
    model, x = build(name), tokens(14)
    whole, _ = forward(model, x)
    logits, state = prefill(model, x[:, :7])
    close(logits, whole[:, 6])
    for t in range(7, 14):
        logits, state = decode_step(model, x[:, t], state)
        close(logits, whole[:, t])


@pytest.mark.sample(0.06)
def test_prefill_in_pieces_and_from_the_initial_state(name):
    model, x = build(name), tokens(14)
    whole, _ = forward(model, x)
    _, state = prefill(model, x[:, :7], model.init_state(2))
    logits, _ = prefill(model, x[:, 7:], state)
    close(logits, whole[:, -1])


@pytest.mark.sample(0.06)
def test_every_parameter_gets_a_gradient(name):
    model, x = build(name), tokens(12)
    graph, params = nnx.split(model)

    @jax.jit
    @jax.grad
    def gradient(params):
        logits, _ = nnx.merge(graph, params)(x)
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 0])

    dead = [where for where, g in by_layer(gradient(params)) if not 0 < np.abs(g).max() < np.inf]
    assert not dead, "zero or not finite: " + ", ".join(dead)


def by_layer(state):
    """Each parameter of each layer and its name; of a pattern's blocks, those of each group."""
    for path, leaf in nnx.to_flat_state(state):
        name = ".".join(map(str, path))
        if path[0] == "groups":
            yield from ((f"{name} of group {n}", one) for n, one in enumerate(leaf[...]))
        else:
            yield name, leaf[...]


def starting_points():
    """Every preset at chunks of 1 and 64, but once where the chunk changes nothing."""
    for name in PRESETS:
        config = miras.preset(name)
        parts = config.rule.kinds()
        free = config.exact or parts["bias"] == "dot" or parts["algorithm"] in FREE
        free = free or name not in RULES  # whose memories have been looked at under their own name
        yield from ((name, c) for c in ([config.chunk] if free and name != "lact" else [1, 64]))


FREE = ("newton", "nonparametric")
# Attention has no inner loss, and that of RWKV-7's erasing term is the norm of what it erases.
NO_LOSS = ("transformer", "sliding_window", "hope_attention", "rwkv7")


STARTS = {f"{name}-{chunk}": (name, chunk) for name, chunk in starting_points()}
# Every member and every way to call `scan` at both chunks; `make exhaustive` looks at the others.
SAMPLE = selection.covering(
    {
        start: {(*label, chunk == 1) for label in labels(name)}
        for start, (name, chunk) in STARTS.items()
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("start", selection.sampled(STARTS, SAMPLE))
@pytest.mark.sample(0.06)
def test_starting_point(start):
    """The inner loss falls over a text and the outer gradient is of order one, for any chunk."""
    name, chunk = STARTS[start]
    config = miras.override(miras.preset(name), "layers=2")
    if config.standing("chunk") != "hidden":  # by a mixer that has chunks of its own
        config = dataclasses.replace(config, chunk=chunk)
    model = LanguageModel(config, nnx.Rngs(0))
    text = np.frombuffer(test_starting_point.__doc__.encode() * 8, np.uint8)[: 2 * 256]
    x = jnp.asarray(text.reshape(2, 256), jnp.int32)
    graph, params = nnx.split(model)

    @jax.jit
    def measure(params):
        def loss(params):
            logits, _ = nnx.merge(graph, params)(x)
            target = jnp.take_along_axis(logits[:, :-1], x[:, 1:, None], -1)[..., 0]
            return jnp.mean(jax.nn.logsumexp(logits[:, :-1], -1) - target)

        grads = jax.grad(loss)(params)
        early = nnx.merge(graph, params).observe(x[:, :64])[2].inner_loss
        late = nnx.merge(graph, params).observe(x)[2].inner_loss
        return jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))), early, late

    norm, early, late = measure(params)
    assert name in NO_LOSS or (late < early).all(), (early, late)
    assert 0.1 < norm < 10


def test_health_names_what_the_rule_has():
    health = build("yaad").observe(tokens(12))[2]
    assert set(health.gates) == {"lr", "decay", "threshold"}
    assert all(leaf.shape == (2,) for leaf in jax.tree.leaves(health))
    np.testing.assert_allclose(health.gates["decay"], 0.999, atol=2e-3)
    assert (health.update_ratio > 0).all()


@pytest.mark.slow
def test_lr_by_position_falls_inside_the_chunk():
    layer = build("ttt_mlp").groups.blocks["M0"].mixer
    assert layer.fast.lr_correction[...].shape == (2, 4)


def test_untied_head_bfloat16_and_no_remat():
    x = tokens(12)
    exact, _ = forward(build("yaad", "tie=false", "remat=false"), x)
    close(forward(build("yaad", "tie=false"), x)[0], exact)
    low, state = forward(build("yaad", "tie=false", "dtype=bfloat16"), x)
    assert low.dtype == jnp.float32
    assert state.layers[0].memory.A["w1"].dtype == jnp.float32
    np.testing.assert_allclose(low, exact, atol=0.1 * float(np.abs(exact).max()))


def test_every_parameter_names_its_axes():
    known = {"layers", "vocab", "embed", "heads", "mlp", None}
    state = nnx.state(build("ttt_mlp", "tie=false"), nnx.Param)
    for path, leaf in nnx.to_flat_state(state):
        names = leaf.get_metadata()["out_sharding"]
        assert len(names) == leaf[...].ndim, path
        assert set(names) <= known, path
        assert (names[0] == "layers") == (path[0] == "groups"), path


@pytest.mark.slow
def test_generation_repeats_with_its_seed_and_obeys_its_limits():
    model, x = build("yaad"), tokens(5)
    first = generate(model, x, 8, temperature=0.8, top_k=5, top_p=0.9, seed=3)
    assert first.shape == (2, 8)
    np.testing.assert_array_equal(
        first, generate(model, x, 8, temperature=0.8, top_k=5, top_p=0.9, seed=3)
    )
    assert not np.array_equal(first, generate(model, x, 8, seed=4))
    greedy = generate(model, x, 4, temperature=0)
    np.testing.assert_array_equal(greedy, generate(model, x, 4, top_k=1, seed=9))
    np.testing.assert_array_equal(greedy, generate(model, x, 4, top_p=1e-6, seed=9))
    np.testing.assert_array_equal(greedy[:, 0], jnp.argmax(forward(model, x)[0][:, -1], -1))
    assert generate(model, x, 0).shape == (2, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(prompt=np.zeros((1, 0), np.int32)), "at least one token per row"),
        (
            dict(prompt=np.full((1, 2), 29)),
            r"lie in \[29, 29\], but the model's vocabulary is \[0, 29\)",
        ),
        (dict(length=-1), "length=-1 must not be negative"),
        (dict(length=10**20), r"length=10{20} must be less than 2\*\*32"),
        (dict(temperature=-0.5), "temperature=-0.5 must be at least 0"),
        (dict(temperature=np.inf), "temperature=inf must be finite"),
        (dict(prompt=np.zeros(3, np.int32)), r"tokens have shape \(3,\): they must be \[B, T\]"),
        (dict(prompt=np.zeros((1, 2))), "tokens have dtype float32: they must be whole numbers"),
        (dict(top_k=0), "top_k=0 must be at least 1"),
        (dict(top_p=1.5), r"top_p=1.5 must be in \(0, 1\]"),
    ],
)
def test_bad_generation_options(options, message):
    call = {"prompt": np.zeros((1, 2), np.int32), "length": 2} | options
    with pytest.raises(miras.ConfigError, match=message):
        generate(build("linear_attention"), **call)
