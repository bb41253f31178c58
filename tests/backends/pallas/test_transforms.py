"""Kernels under jax's transformations, against the XLA backend under the same."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.backends.pallas.interpreter import interpreted
from miras.backends.pallas.tpu.plan import TpuLimits
from miras.testing.expect import expect_close
from tests.backends.pallas.calls import call, kernels
from tests.devices import environment


def total(static, arrays, backend):
    """A scalar of the outputs of a call."""
    y, _ = miras.scan(
        static["rule"], *arrays["inputs"], exact=static["exact"], chunk=8, backend=backend
    )
    return jnp.sum(jnp.sin(y))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["gated_deltanet", pytest.param("titans_lmm", marks=pytest.mark.exhaustive)]
)
def test_vmap_and_scan(name):
    static, arrays = call(name, B=2, T=11, dk=4, dtype=np.float32)
    several = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), arrays)

    def objective(several, backend):
        mapped = jax.vmap(lambda one: total(static, one, backend))(several)
        _, scanned = jax.lax.scan(lambda c, one: (c, total(static, one, backend)), 0, several)
        return jnp.sum(mapped) + 2 * jnp.sum(scanned)

    gradient = jax.jit(jax.value_and_grad(objective), static_argnums=1)
    want = gradient(several, "xla")
    with interpreted(), kernels(TpuLimits(any_order=False)) as backend:
        got = gradient(several, backend)
    expect_close(got, want, name, 2e-5)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, PartitionSpec as P
from miras.backends.pallas.interpreter import interpreted
from miras.testing.expect import expect_close
from tests.backends.pallas.calls import call
from tests.backends.pallas.test_transforms import total

static, arrays = call("gated_deltanet", B=2, T=11, dk=4, dtype=np.float32)
W0, *streams = jax.tree.map(jnp.asarray, arrays["inputs"])
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


def whole(W0, streams, backend):
    return total(static, {"inputs": (W0, *streams)}, backend)


def sharded(W0, streams, backend):
    def on_one_device(W0, streams):
        return jax.lax.psum(whole(W0, streams, backend), "data")

    specs = P(), P("data")
    return jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=P())(W0, streams)


def gradient(objective, backend):
    return jax.jit(jax.value_and_grad(objective, (0, 1)), static_argnums=2)(W0, streams, backend)


want = gradient(whole, "reference")
expect_close(gradient(sharded, "xla"), want, "xla", 2e-5)
with interpreted():
    got = gradient(sharded, "pallas")
expect_close(got, want, "pallas", 2e-5)
"""


@pytest.mark.multiprocess
def test_shard_map(python):
    """Rows on two devices, the weights on both; in a process of its own, which has two."""
    command = [*python, "-c", SHARDED]
    subprocess.run(command, check=True, env=environment(2), timeout=300)
