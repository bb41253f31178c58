"""The outer optimisers by name: what each does to matrices, vectors and stacks of layers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from miras import from_dict, override, preset, to_dict
from miras.errors import ConfigError
from miras.models import LanguageModelConfig
from miras.train import RunConfig, TrainConfig, train
from miras.train.optimizer import (
    Gradient,
    axis_names,
    decay_mask,
    make_optimizer,
    optimizer_of,
    schedule,
)
from miras.train.optimizers import AxisNames, Optimizer, Setting, register
from miras.train.state import structure
from tests.tolerances import tolerance
from tests.train.test_loop import StoppedError, assert_same, stop_at

CLOSE = tolerance(np.float32, factor=8)

NAMES = ["adamw", "muon", "lion", "adafactor"]
SMALL = ("width=16", "layers=2", "heads=2")
# Together they have a parameter of every kind: gates, low rank, kv memories, both heads, biases.
MODELS = ["rwkv7", "titans_mac", "ttt_mlp"]


def small(name, *more) -> LanguageModelConfig:
    return override(preset(name), *SMALL, *more)


def random_like(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)


def named(tree):
    """(dotted name, leaf) of each leaf."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in paths]


def test_every_name_is_there():
    assert set(NAMES) <= set(Optimizer.registry.names())
    with pytest.raises(ConfigError, match=r"unknown optimizer 'adam': .*did you mean 'adamw'"):
        TrainConfig(optimizer="adam")


def test_the_recipe_before_optimisers_had_names_is_unchanged():
    """A config without the new fields, and optax's AdamW: the same state and the same bits."""
    config = TrainConfig(steps=20, warmup=3)
    old = {
        k: v for k, v in to_dict(config).items() if k not in ("optimizer", "schedule", "cooldown")
    }
    assert from_dict(TrainConfig, old) == config
    _, params = structure(small("yaad"))
    decayed = decay_mask(params)
    params = random_like(params.to_pure_dict(), 0)
    mine = make_optimizer(config, decayed)
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optax.warmup_cosine_decay_schedule(3e-3 / 4, 3e-3, 3, 20, 3e-4),
            b1=0.9, b2=0.95, weight_decay=0.1, mask=decayed,
        ),
    )  # fmt: skip
    a, b = mine.init(params), theirs.init(params)
    assert jax.tree.structure(a.inner) == jax.tree.structure(b)
    step, reference = jax.jit(mine.update), jax.jit(theirs.update)
    for seed in range(1, 4):
        gradient = random_like(params, seed)
        left, a = step(Gradient(gradient, jnp.ones(())), a, params)
        right, b = reference(gradient, b, params)
        jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.sample(0.0)
def test_muon_orthogonalises_every_matrix_by_itself(name):
    """Layers and heads are axes: each slice is what optax's muon makes of it as a 2-D array."""
    _, abstract = structure(small(name, "tie=false"))
    axes = axis_names(abstract)
    params = random_like(abstract.to_pure_dict(), 0)
    gradient = random_like(params, 1)
    optimizer = Optimizer.registry.get("muon")()
    direction = optimizer.direction(Setting(0.9, 0.95, axes))
    found, _ = direction.update(gradient, direction.init(params), params)
    leaves = zip(named(gradient), jax.tree.leaves(axes), jax.tree.leaves(found), strict=True)
    seen = set()
    for (path, g), axis, d in leaves:
        kind = path.rpartition("M0.")[2]
        if axis.matrix is None:
            seen.add(f"adam:{kind}")
            size = float(jnp.max(jnp.abs(d)))  # Adam's first step is the same size everywhere
            np.testing.assert_allclose(d, size * np.sign(g), rtol=1e-2, err_msg=path)
            continue
        seen.add(f"muon:{kind}")
        for got, slice_ in zip(_matrices(d, axis), _matrices(g, axis), strict=True):
            alone = optax.contrib.muon(-1.0, consistent_rms=0.2)
            expected, _ = alone.update(slice_, alone.init(slice_), slice_)
            np.testing.assert_allclose(got, expected, atol=2e-5, rtol=2e-4, err_msg=path)
            scale = 0.2 * max(slice_.shape) ** 0.5
            values = np.linalg.svd(got / scale, compute_uv=False)
            assert values.max() < 1.4, path
            assert np.median(values) > 0.6, path
    vectors = {"embedding", "norm.scale", "mixer_norm.scale", "head.kernel"}
    assert {f"adam:{v}" for v in vectors} <= seen
    assert {"muon:mlp.up.kernel", "muon:mlp.down.kernel"} <= seen
    for entry in seen:
        how, _, kind = entry.partition(":")
        adam = any(w in kind for w in ("scale", "bias", "conv", "embedding", "head.", "shift"))
        if adam or kind.endswith(".kernel") or ".w" in kind:
            assert how == ("adam" if adam else "muon"), entry


@pytest.mark.parametrize(
    ("names", "matrix"),
    [
        (("layers", "embed", None, "heads", None), ((1,), (3, 4))),  # queries, keys and values
        (("layers", None, "heads", None), ((1,), (2, 3))),
        (("layers", "embed", "heads", None), ((1,), (2, 3))),
        (("layers", "embed", "heads"), ((1,), (2,))),
        (("layers", "heads", "embed"), ((1,), (2,))),
        (("layers", "embed", None), ((1,), (2,))),
        (("embed", "mlp"), ((0,), (1,))),
        (("layers", "heads", None, None), ((-2,), (-1,))),
        (("layers", "heads", None), None),
        (("vocab", "embed"), None),
        (("embed", "vocab"), None),
        (("layers", "embed"), None),
        (("embed",), None),
    ],
)
def test_which_dimensions_make_a_matrix(names, matrix):
    found = AxisNames(names).matrix
    assert (found if found is None else tuple(found)) == matrix
    assert AxisNames(names, depthwise=True).matrix is None


def _matrices(x, axis):
    """The matrices in an array, from the axes' names alone and not from `AxisNames.matrix`."""
    names, x = list(axis.names), np.asarray(x)
    if names[0] == "layers":
        for layer in x:
            yield from _matrices(layer, AxisNames(tuple(names[1:])))
    elif names[0] == "heads" and not any(names[1:]):
        for head in x.reshape(-1, *x.shape[-2:]):
            yield jnp.asarray(head)
    elif "heads" in names and names.index("heads") == 2:  # queries, keys and values
        for part in np.moveaxis(x, 1, 0):
            yield jnp.asarray(part.reshape(len(part), -1))
    else:
        yield jnp.asarray(x.reshape(len(x), -1))


def test_adafactor_takes_each_layer_for_a_block():
    axes = {"w": AxisNames(("layers", "embed", "mlp")), "b": AxisNames((None,))}
    params = {"w": jnp.stack([jnp.ones((4, 6)), 100 * jnp.ones((4, 6))]), "b": jnp.ones(3)}
    gradient = random_like(params, 0)
    optimizer = Optimizer.registry.build({"kind": "adafactor", "min_dim_size_to_factor": 2})
    together = optimizer.direction(Setting(0.9, 0.95, axes))
    found, _ = together.update(gradient, together.init(params), params)
    alone = optimizer.direction(Setting(0.9, 0.95, {"w": AxisNames(("embed", "mlp"))}))
    for layer in range(2):
        one = {"w": params["w"][layer]}
        d, _ = alone.update({"w": gradient["w"][layer]}, alone.init(one), one)
        np.testing.assert_allclose(found["w"][layer], d["w"], rtol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_all_descend_and_decay_matrices_only(name):
    config = TrainConfig(
        optimizer=name, weight_decay=0.5, learning_rate=0.1, warmup=0, schedule="constant"
    )
    _, abstract = structure(small("yaad"))
    params = random_like(abstract.to_pure_dict(), 0)
    optimizer = optimizer_of(config, abstract)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    nothing = Gradient(jax.tree.map(jnp.zeros_like, params), jnp.ones(()))
    updates, _ = update(nothing, state, params)
    decayed = jax.tree.map(lambda d, p: -0.05 * p if d else 0 * p, decay_mask(abstract), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=CLOSE), updates, decayed)
    updates, _ = update(Gradient(params, jnp.ones(())), state, params)  # of |p|^2 / 2
    assert all(float(jnp.vdot(u, p)) < 0 for u, p in zip(*map(jax.tree.leaves, (updates, params))))


@pytest.mark.parametrize("name", ["muon", pytest.param("adafactor", marks=pytest.mark.exhaustive)])
def test_a_run_goes_on_with_the_optimisers_state(tiny, tmp_path, monkeypatch, console, name):
    config = tiny(f"optimizer={name}", "accumulate=2", steps=4)
    whole = train(config, tmp_path / "whole", console=console)
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(StoppedError):
            train(config, tmp_path / "cut", console=console)
    assert_same(train(config, tmp_path / "cut", console=console).state, whole.state)


@pytest.mark.slow
def test_an_optimiser_of_ones_own_is_registered_and_used():
    @register("plain_sgd")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class PlainSGD(Optimizer):
        factor: float = 1.0

        def direction(self, setting: Setting) -> optax.GradientTransformation:
            return optax.scale(self.factor)

    config = override(
        RunConfig(small("yaad")), "optimizer=plain_sgd", "optimizer.factor=2", "schedule=constant",
        "warmup=0", "learning_rate=0.5", "weight_decay=0", "clip=1e9",
    )  # fmt: skip
    _, abstract = structure(config.model)
    params = random_like(abstract.to_pure_dict(), 0)
    optimizer = optimizer_of(config.train, abstract)
    updates, _ = optimizer.update(Gradient(params, jnp.ones(())), optimizer.init(params), params)
    jax.tree.map(lambda u, p: np.testing.assert_allclose(u, -p, rtol=CLOSE), updates, params)


def test_wsd_is_constant_and_then_falls_to_nothing():
    config = TrainConfig(steps=100, warmup=10, schedule="wsd", learning_rate=1.0)
    rates = np.asarray(schedule(config)(jnp.arange(100)))
    np.testing.assert_allclose(rates[:11], np.linspace(1 / 11, 1, 11), rtol=CLOSE)
    np.testing.assert_array_equal(rates[10:80], 1.0)
    np.testing.assert_allclose(
        rates[80:], 1 - np.sqrt(np.arange(20) / 20), rtol=tolerance(np.float32, factor=64)
    )
    own = dataclasses.replace(config, cooldown=50)
    assert (np.diff(np.asarray(schedule(own)(jnp.arange(50, 100)))) < 0).all()
    with pytest.raises(ConfigError, match=r"train\.cooldown=95 and the warm-up of 10"):
        schedule(dataclasses.replace(config, cooldown=95))
    for steps in (1, 2, 5, 29):  # the defaults fit any run
        rates = schedule(TrainConfig(steps=steps, schedule="wsd"))(jnp.arange(steps))
        assert (np.asarray(rates) > 0).all()


def test_constant_stays_after_its_warm_up():
    config = TrainConfig(steps=100, warmup=4, schedule="constant", learning_rate=1.0)
    rates = np.asarray(schedule(config)(jnp.arange(100)))
    np.testing.assert_allclose(rates[:5], np.linspace(0.2, 1, 5), rtol=CLOSE)
    np.testing.assert_array_equal(rates[4:], 1.0)
