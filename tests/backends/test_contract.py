"""The backend contract: every registered backend, kernels in the interpreter of each device.

What a backend says in `supports` that it cannot do must raise `ConfigError` with the reason; the
rest must agree with the reference, in value and gradient, in float64.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.backends.base import Backend, Unsupported
from miras.backends.dispatch import AUTO, BACKENDS, RegisteredBackend, register
from miras.backends.pallas.interpreter import interpreted
from miras.backends.xla.backend import Xla
from miras.testing import random_inputs
from miras.testing.expect import expect_close, expect_finite
from miras.testing.gradients import value_and_gradients
from miras.testing.inputs import scan_with_loss

CHUNK = 8
RULES = {
    "matrix": miras.Rule("matrix", "l2", "l2", "gd", order="decay_first"),
    "mlp": miras.Rule(
        {"kind": "mlp", "expansion": 2, "residual": False, "norm": None}, "huber", "kl", "gd"
    ),
}
DEVICES = {"pallas": ("tpu", "gpu")}
CASES = [(name, device) for name in BACKENDS for device in DEVICES.get(name, (None,))]
every_backend = pytest.mark.parametrize(("name", "device"), CASES, ids=str)

pytestmark = pytest.mark.usefixtures("everywhere")


def on(device):
    """A context in which a device's kernels run."""
    return contextlib.nullcontext() if device is None else interpreted(device)


def supports(name, device):
    with on(device):
        return BACKENDS[name].load().supports


def inputs_of(rule, T=2 * CHUNK):
    return jax.tree.map(jnp.asarray, random_inputs(rule, B=2, T=T, H=1, dk=4))


def found(rule, inputs, **options):
    """y, the losses and the memory, and the gradients of a scalar of them by all inputs."""

    def run(inputs):
        y, state, loss = scan_with_loss(rule, *inputs, chunk=CHUNK, **options)
        return {"y": y, "loss": loss, "A": state.A, "R": state.R}

    return jax.jit(functools.partial(value_and_gradients, run))(inputs)


def agree(name, device, rule, inputs, **options):
    want = found(rule, inputs, backend="reference", **options)
    with on(device):
        got = found(rule, inputs, backend=name, **options)
    expect_finite(got, name)
    expect_close(got, want, f"{name} is not reference")


@every_backend
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.sample(0.0)
def test_values_and_gradients(name, device, rule):
    if (device, rule) == ("gpu", "mlp"):
        return  # float64 fills a GPU's registers: `gpu/test_values.py` has deep memories in float32
    agree(name, device, RULES[rule], inputs_of(RULES[rule], T=2 * CHUNK - 3))


@every_backend
def test_segments_and_masks(name, device):
    ids = jnp.asarray([[0] * CHUNK + [1] * CHUNK, [0] * 5 + [1] * 11])
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 2 * CHUNK)) < 0.7)
    agree(name, device, RULES["matrix"], inputs_of(RULES["matrix"]), segment_ids=ids, mask=mask)


@every_backend
def test_a_split_sequence_is_the_whole(name, device):
    rule = RULES["matrix"]
    W0, *streams = inputs_of(rule, T=3 * CHUNK)
    run = jax.jit(functools.partial(miras.scan, rule, chunk=CHUNK, backend=name))
    part = lambda low, high: jax.tree.map(lambda x: x[:, low:high], streams)  # noqa: E731
    with on(device):
        whole, end = run(W0, *streams)
        first, state = run(W0, *part(0, 11))
        second, last = run(W0, *part(11, 24), state=state)
    expect_close(jnp.concatenate([first, second], axis=1), whole, "outputs")
    expect_close((last.A, last.S, last.position), (end.A, end.S, end.position), "states")


# The TPU's interpreter, unlike its compiler, does not know that vmap adds a dimension to a grid:
# `pallas/test_transforms.py` has that.
@pytest.mark.parametrize(("name", "device"), [c for c in CASES if c[1] != "tpu"], ids=str)
def test_it_maps_over_a_new_axis(name, device):
    rule = RULES["matrix"]
    one = inputs_of(rule)
    run = functools.partial(miras.scan, rule, chunk=CHUNK, backend=name)
    several = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), one)
    with on(device):
        got = jax.vmap(lambda x: run(*x)[0])(several)
        want = [run(*jax.tree.map(lambda x, i=i: x[i], several))[0] for i in (0, 1)]
    expect_close(got, jnp.stack(want), "vmap")


def may_be_unsupported(name, device, flag):
    """A context that expects the error of a backend which says that it does not do this."""
    if getattr(supports(name, device), flag):
        return contextlib.nullcontext()
    return pytest.raises(miras.ConfigError)


@every_backend
def test_save_every_changes_no_value(name, device):
    with may_be_unsupported(name, device, "save_every"):
        agree(name, device, RULES["matrix"], inputs_of(RULES["matrix"]), save_every="sqrt")


@every_backend
def test_tokens_one_by_one(name, device):
    rule = RULES["matrix"]
    W0, *streams = inputs_of(rule, T=1)
    _, state = miras.scan(rule, W0, *streams, chunk=CHUNK)
    want, _ = miras.scan(rule, W0, *streams, state=state, chunk=CHUNK, backend="reference")
    with on(device):
        got, _ = miras.scan(rule, W0, *streams, state=state, chunk=CHUNK, backend=name)
        expect_close(got, want, "one token")


@every_backend
def test_narrow_products(name, device):
    rule, precision = RULES["matrix"], miras.Precision(matmul="bfloat16")
    inputs = inputs_of(rule)
    want, _ = miras.scan(rule, *inputs, chunk=CHUNK, precision=precision, backend="xla")
    with may_be_unsupported(name, device, "precision"), on(device):
        got, _ = miras.scan(rule, *inputs, chunk=CHUNK, precision=precision, backend=name)
        expect_close(got, want, "bfloat16 products", 2e-2)


@every_backend
def test_forward_mode(name, device):
    rule = RULES["matrix"]
    inputs = inputs_of(rule)
    run = lambda x, backend: miras.scan(rule, *x, chunk=CHUNK, backend=backend)[0]  # noqa: E731
    want = jax.jvp(lambda x: run(x, "reference"), (inputs,), (inputs,))
    if not supports(name, device).forward_mode:
        with on(device), pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(lambda x: run(x, name), (inputs,), (inputs,))
        return
    with on(device):
        got = jax.jvp(lambda x: run(x, name), (inputs,), (inputs,))
    expect_close(got, want, "forward mode")


class Picky(Backend):
    """Refuses every call."""

    def plan(self, rule, inputs, options, alignment):
        return Unsupported("it is a Tuesday")

    def run(self, *call):
        raise AssertionError


def test_a_backend_is_registered_and_auto_asks_it_where_it_is_preferred(monkeypatch):
    asked = []

    class Mine(Xla):
        def run(self, *call):
            asked.append(1)
            return super().run(*call)

    for name in BACKENDS:
        monkeypatch.setitem(BACKENDS, name, BACKENDS[name])
    register("picky", Picky, prefers=("cpu",))
    register("mine", Mine, prefers=("cpu",))
    try:
        rule, inputs = RULES["matrix"], inputs_of(RULES["matrix"])
        with pytest.raises(miras.ConfigError, match='backend="picky" cannot run this: it is a Tue'):
            miras.scan(rule, *inputs, chunk=CHUNK, backend="picky")
        y, _ = miras.scan(rule, *inputs, chunk=CHUNK, backend=AUTO)
        assert asked
        expect_close(y, miras.scan(rule, *inputs, chunk=CHUNK, backend="xla")[0], "mine")
        with pytest.raises(miras.ConfigError, match="'xla' is registered already"):
            register("xla", Mine)
    finally:
        BACKENDS.pop("picky"), BACKENDS.pop("mine")


def test_a_models_config_chooses_its_backend(monkeypatch):
    asked = []

    class Counted(Xla):
        def run(self, *call):
            asked.append(1)
            return super().run(*call)

    monkeypatch.setitem(BACKENDS, "counted", RegisteredBackend(Counted))
    from flax import nnx

    from miras.models import LanguageModel

    config = miras.override(miras.preset("yaad"), "backend=counted", "layers=1", "width=16")
    LanguageModel(config, rngs=nnx.Rngs(0))(jnp.zeros((1, 16), jnp.int32))
    assert asked
    with pytest.raises(miras.ConfigError, match=r"unknown model.backend 'cuda'.*legal"):
        miras.override(miras.preset("yaad"), "backend=cuda")
