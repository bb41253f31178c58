"""The registry of lowerings, and what equations keep when they are evaluated by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from miras.backends.pallas.gpu.lowerings import TRITON, evaluate_on_gpu
from miras.backends.pallas.tpu.lowerings import MOSAIC
from miras.backends.pallas.tpu.register_layouts import leave
from miras.backends.pallas.tpu.register_lowerings import evaluate_on_tpu
from miras.backends.pallas.trace.jaxprs import equations, evaluate
from miras.backends.pallas.trace.lowerings import Lowerings
from miras.backends.pallas.trace.primitives import named
from miras.backends.pallas.trace.program import trace
from miras.backends.pallas.trace.shared_lowerings import CALLS
from miras.optim.sums_between import by_product, sums_between
from tests.tolerances import tolerance


def on_tpu(jaxpr, constants, *args):
    """As a TPU kernel evaluates it, arrays for arrays."""
    return [*map(leave, evaluate_on_tpu(jaxpr, constants, *args))]


COMPILERS = {"TPU": (MOSAIC, on_tpu), "GPU": (TRITON, evaluate_on_gpu)}


def test_a_rule_of_the_base_applies_unless_there_is_an_own_one():
    base = Lowerings("base")
    base.register(lax.sin_p, lax.cos_p)(lambda eqn, inputs, context: ["base"])
    own = Lowerings("own", base)
    own.register(lax.sin_p)(lambda eqn, inputs, context: ["own"])
    eqns = {e.primitive: e for e in jax.make_jaxpr(lambda x: jnp.sin(x) + jnp.cos(x))(1.0).eqns}
    assert own(eqns[lax.sin_p], [1.0], None) == ["own"]
    assert own(eqns[lax.cos_p], [1.0], None) == ["base"]
    with pytest.raises(ValueError, match="sin has a own lowering already"):
        own.register(lax.sin_p)(lambda *_: [])


def test_a_primitive_that_jax_does_not_expose_is_known_by_its_name():
    assert named("dot_general no_such_primitive") == (lax.dot_general_p, "no_such_primitive")


def scoped(x):
    """Two scopes, one in a function that is inlined, and their derivative."""

    @jax.jit
    def inner(x):
        with jax.named_scope("hidden"):
            return jnp.tanh(x @ x.T)

    with jax.named_scope("loss"):
        return jnp.sum(inner(x) ** 2)


@pytest.mark.parametrize("device", COMPILERS)
@pytest.mark.parametrize("function", [scoped, jax.grad(scoped)], ids=["value", "gradient"])
def test_equations_keep_their_names_and_lines(device, function):
    """So that a profile of a kernel names the step's parts, and an error its lines."""
    x = jnp.ones((16, 16))
    program = trace(function, x)
    _, run = COMPILERS[device]
    lowered = jax.make_jaxpr(lambda x: run(program.jaxpr, program.constants, x))(x)
    products = [e for e in equations(lowered.jaxpr) if e.primitive is lax.dot_general_p]
    assert products
    for eqn in products:
        assert "loss" in str(eqn.source_info.name_stack)
        assert "hidden" in str(eqn.source_info.name_stack)
        frames = eqn.source_info.traceback.frames
        assert any(frame.function_name.endswith("inner") for frame in frames)


def test_interleaved_programs_keep_their_names():
    program = trace(scoped, jnp.ones((16, 16)))

    def pair(x, y):
        return program.interleaved([(x,), (y,)], in_step=False)

    x = jnp.ones((16, 16))
    eqns = jax.make_jaxpr(pair)(x, 2 * x).jaxpr.eqns
    assert all("loss" in str(eqn.source_info.name_stack) for eqn in eqns)


@pytest.mark.parametrize("device", COMPILERS)
def test_sums_between_tokens(device):
    """In registers on a TPU (here not: `roll` is a TPU's), as a product on a GPU."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=12), jnp.float32)
    program = trace(sums_between, x)
    lowerings, run = COMPILERS[device]
    assert all(map(lowerings.supports, equations(program.jaxpr)))
    (got,) = run(program.jaxpr, program.constants, jnp.pad(x, (0, 4)) if device == "GPU" else x)
    want = by_product(x)
    close = tolerance(jnp.float32, 12) * float(jnp.abs(want).max())
    np.testing.assert_allclose(got[:12, :12], want, atol=close)


def test_sums_between_tokens_under_transformations():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    weights = jnp.cos(jnp.arange(64.0)).reshape(8, 8)
    objective = lambda f: lambda x: jnp.sum(weights * jnp.sin(f(x)))  # noqa: E731
    for transformed in (jax.vmap, lambda f: jax.jit(jax.vmap(jax.grad(f)))):
        got, want = transformed(objective(sums_between)), transformed(objective(by_product))
        # Each of the 64 terms has a sine, a product and a sum that are rounded.
        np.testing.assert_allclose(got(x), want(x), rtol=0, atol=tolerance(jnp.float32, 64, 3))


def test_calls_alone_are_inlined_by_their_registry():
    closed = jax.make_jaxpr(jax.jit(jnp.sin))(1.0)
    flat = jax.make_jaxpr(lambda x: evaluate(CALLS, closed.jaxpr, [], x))(1.0)
    assert [eqn.primitive for eqn in flat.eqns] == [lax.sin_p]
