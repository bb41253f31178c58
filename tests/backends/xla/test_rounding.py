"""Precision: what each setting puts into the program, what it costs, and what is refused."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras import Precision
from miras.backends.pallas.interpreter import interpreted
from miras.backends.xla.rounding import rounded
from miras.engine.state import initial_state
from miras.models import LanguageModel
from miras.testing import random_inputs
from miras.train import RunConfig

pytestmark = pytest.mark.usefixtures("optimised")

SETTINGS = {
    "default": Precision(),
    "float32": Precision(matmul="float32"),
    "bfloat16": Precision(matmul="bfloat16"),
    "bfloat16 sums": Precision(matmul="bfloat16", accumulation="bfloat16"),
    "bfloat16 state": Precision(state="bfloat16"),
}
PRESETS = ("titans_lmm", "gated_deltanet")


@functools.cache
def inputs(name):
    return random_inputs(miras.preset(name).rule, B=1, T=11, dk=8, dtype="f4")


def total(name, precision, arguments):
    config = miras.preset(name)
    y, state = miras.scan(
        config.rule,
        *arguments,
        chunk=4,
        exact=config.exact,
        precision=precision,
        backend="xla",
    )
    return jnp.sum(jnp.sin(y)), (y, state)


@functools.cache
def lowered(name, setting):
    objective = functools.partial(total, name, SETTINGS[setting])
    return jax.jit(jax.value_and_grad(objective, has_aux=True)).lower(inputs(name))


@functools.cache
def results(setting):
    return lowered("gated_deltanet", setting).compile()(inputs("gated_deltanet"))


def products(name, setting):
    """(dtypes of operands and result, precision) of every product of two matrices of a head.

    In the backward pass as well; with one row and two heads, two more dimensions than the step has.
    """
    found = set()
    for line in lowered(name, setting).as_text().splitlines():
        if "stablehlo.dot_general" in line and "HIGHEST, HIGHEST" not in line:
            shapes = re.findall(r"tensor<([\dx]*)x(\w+)>", line)
            if all(len(shape.split("x")) >= 4 for shape, _ in shapes):
                found.add(tuple(dtype for _, dtype in shapes))
    return found


WANTED = {
    "default": {("f32", "f32", "f32")},
    "float32": set(),  # each asks for all bits
    "bfloat16": {("bf16", "bf16", "f32")},
    "bfloat16 sums": {("bf16", "bf16", "bf16")},
    "bfloat16 state": {("f32", "f32", "f32")},
}


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.sample(0.2)
def test_every_product_is_what_was_asked_for(name, setting):
    assert products(name, setting) == WANTED[setting]


def test_the_default_leaves_the_step_as_it_is():
    def step(x):
        return x

    assert rounded(step, Precision(state="bfloat16")) is step


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_state_is_kept_as_asked(setting):
    objective = functools.partial(total, "titans_lmm", SETTINGS[setting])
    _, (_, state) = jax.eval_shape(objective, inputs("titans_lmm"))
    wanted = jnp.dtype("bfloat16" if setting == "bfloat16 state" else "float32")
    kept = jax.tree.leaves((state.A, state.S, state.R))
    assert len(kept) == 6
    assert {leaf.dtype for leaf in kept} == {wanted}


def test_all_bits_on_a_cpu_are_what_it_does_by_default():
    jax.tree.map(np.testing.assert_array_equal, results("float32"), results("default"))


@pytest.mark.slow
def test_errors_are_ordered():
    """Each rounding to bfloat16 errs by up to 2^-9, and the gradients take some ten in a row."""
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), inputs("gated_deltanet"))
        objective = functools.partial(total, "gated_deltanet", Precision())
        want = jax.tree.map(np.asarray, jax.jit(jax.value_and_grad(objective, has_aux=True))(exact))

    def errors(setting):
        """Of y and of the gradient by q, k and v."""
        pairs = [
            [(out[0][1][0], *out[1][1:4])[i] for out in (results(setting), want)] for i in range(4)
        ]
        return [float(np.linalg.norm(np.asarray(a) - b) / np.linalg.norm(b)) for a, b in pairs]

    rows = zip(*map(errors, ("default", "bfloat16", "bfloat16 sums", "bfloat16 state")))
    for default, low, sums, state in rows:
        assert default < 16 * 2**-24
        assert 2**-10 < low < sums < 10 * 2**-9
        assert 2**-12 < state < 10 * 2**-9


def test_a_state_of_another_precision_is_taken_over():
    rule = miras.preset("titans_lmm").rule
    W0, *streams = inputs("titans_lmm")
    wide = initial_state(rule, W0, 1, 8, 8)
    run = functools.partial(
        miras.scan, rule, W0, *streams, chunk=4, precision=SETTINGS["bfloat16 state"]
    )
    assert jax.eval_shape(lambda: run(state=wide))[1].A["w1"].dtype == jnp.bfloat16


REFUSED = {
    "state": (dict(state="float16"), r"Precision.state='float16' is not one of 'float32', 'bf"),
    "matmul": (dict(matmul="int8"), r"Precision.matmul='int8' is not one of 'default', 'float32'"),
    "sums": (dict(accumulation="bfloat16"), r"narrower than what enters .*: set precision.matmul"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED.values(), ids=REFUSED)
def test_other_settings_are_refused(fields, message):
    with pytest.raises(miras.ConfigError, match=message):
        Precision(**fields)


def test_a_call_that_cannot_have_it_is_refused():
    rule = miras.preset("titans_lmm").rule
    W0, *streams = inputs("titans_lmm")
    run = functools.partial(miras.scan, rule, W0, *streams, chunk=4)
    with pytest.raises(
        miras.ConfigError, match=r"precision='bfloat16' is not a Precision: give one"
    ):
        run(precision="bfloat16")
    with pytest.raises(miras.ConfigError, match=r"is the oracle and rounds nothing: use"):
        run(precision=SETTINGS["bfloat16"], backend="reference")
    attention = miras.preset("transformer")
    with pytest.raises(miras.ConfigError, match=r"memory 'kv' keeps its tokens"):
        miras.override(attention, "precision.state=bfloat16")


def test_a_model_takes_it_as_an_override():
    run = miras.override(
        RunConfig(miras.preset("titans_lmm")),
        "precision.matmul=bfloat16", "precision.accumulation=bfloat16", "precision.state=bfloat16",
        "layers=1",
    )  # fmt: skip
    model = nnx.eval_shape(lambda: LanguageModel(run.model, nnx.Rngs(0)))
    tokens = jax.ShapeDtypeStruct((1, 16), jnp.int32)
    state = jax.eval_shape(lambda: LanguageModel(run.model, nnx.Rngs(0)).init_state(1))
    _, after = nnx.eval_shape(lambda model, x: model(x), model, tokens)
    kept = [part.layers[0].memory.A["w1"].dtype for part in (state, after)]
    assert kept == [jnp.bfloat16, jnp.bfloat16]


def test_a_kernel_rounds_as_the_xla_backend_does():
    """The kernel is given the rounded step, and its memory has the state's dtype."""
    config, low = miras.preset("gated_deltanet"), Precision(state="bfloat16", matmul="bfloat16")
    W0, *streams = random_inputs(config.rule, B=1, T=32, H=1, dk=8, dtype="f4")

    def y(backend):
        options = dict(chunk=16, exact=True, precision=low, backend=backend)
        return np.asarray(miras.scan(config.rule, W0, *streams, **options)[0])

    with interpreted():
        got = y("pallas")
    # Sums in another order now and then fall on the other side of a rounding to bfloat16.
    np.testing.assert_allclose(got, y("xla"), atol=2**-9 * np.abs(got).max())
