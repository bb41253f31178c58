"""Kernels through the TPU's own compiler, on a machine without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.config import ConfigError
from miras.kernels import plan
from miras.kernels.ahead import compile_ahead
from tests.kernels.calls import NAMES, call

pytestmark = [pytest.mark.tpu_aot, pytest.mark.usefixtures("libtpu")]

CHIPS = ("v5e", "v5p", "v6e")
# The weights of these do not fit into VMEM at a width of 64: see docs/kernels.md.
LARGE = ("atlas", "atlas++")


def compiled(static, arrays, chip, chunk=64):
    """Text of the program of a call and its gradients."""

    def total(arrays):
        y, _ = miras.scan(
            static["rule"],
            *arrays["inputs"],
            k_write=arrays.get("k_write"),
            exact=static["exact"],
            chunk=chunk,
            backend="pallas",
        )
        return jnp.sum(y.astype(jnp.float32))

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
    return compile_ahead(jax.grad(total), shapes, chip=chip).as_text()


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", NAMES)
def test_every_preset(name, chip, monkeypatch):
    monkeypatch.setattr(plan, "TOKENS", 64)  # with nothing to find again, in half the time
    static, arrays = call(name, T=192, dk=64, dtype=np.float32)
    if name in LARGE:
        with pytest.raises(ConfigError, match="MiB of VMEM, more than the"):
            compiled(static, arrays, chip)
        return
    text = compiled(static, arrays, chip)
    assert "miras_forward" in text
    assert "miras_backward" in text
