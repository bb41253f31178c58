"""Kernels through the TPU's own compiler, on a machine without one."""

import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.backends.pallas.ahead_of_time import compile_ahead
from miras.backends.pallas.tpu.plan import TpuLimits
from miras.config import ConfigError
from miras.testing import random_inputs
from tests import selection
from tests.backends.pallas.calls import NAMES, call, erasing, gradient, kernels, mimo, shapes
from tests.contract import space

pytestmark = [pytest.mark.tpu_aot, pytest.mark.usefixtures("libtpu")]

CHIPS = ("v5e", "v5p", "v6e")
TOO_LARGE = [("atlas++", "v5p")]  # for its 64 MiB of VMEM, at a width of 64; it takes 32


def compiled(static, arrays, chip, chunk=64, limits=None):
    """Text of the program of a call and its gradients."""
    with kernels(limits) as backend:
        function = gradient(static, chunk=chunk, backend=backend)
        return compile_ahead(function, shapes(arrays), chip=chip).as_text()


# Presets that have every member: one on each other chip, at the size of a layer, and the rest on a
# v5e. What is compiled grows with the tile, so these are smaller; `make exhaustive` has all.
LARGE = {"v5p": "titans_lmm", "v6e": "lact"}
MEMBERS = selection.covering({name: miras.preset(name).rule.kinds().items() for name in NAMES})
HELD = [
    pytest.param(name, chip, marks=[pytest.mark.exhaustive] * (name != LARGE.get(chip)))
    for chip in CHIPS
    for name in NAMES
]


def kernels_of_a_preset(name, chip, size):
    """Compiles three chunks of `size` tokens and channels: forward and backward are kernels."""
    limits = TpuLimits(tokens=size)  # with nothing to recompute, in half the time
    width = 32 if (name, chip) in TOO_LARGE else size
    static, arrays = call(name, T=3 * size, dk=width, dtype=np.float32)
    text = compiled(static, arrays, chip, size, limits)
    assert "miras_forward" in text
    assert "miras_backward" in text


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chip"), HELD)
def test_every_preset(name, chip):
    kernels_of_a_preset(name, chip, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MEMBERS - {*LARGE.values()}))
def test_every_member_at_a_smaller_size(name):
    kernels_of_a_preset(name, "v5e", 16)


@pytest.mark.parametrize(("name", "chip"), TOO_LARGE)
def test_a_preset_that_needs_more_vmem_than_the_chip_has_is_told(name, chip):
    static, arrays = call(name, T=192, dk=64, dtype=np.float32)
    with pytest.raises(ConfigError, match="MiB of VMEM, more than the"):
        compiled(static, arrays, chip, limits=TpuLimits(tokens=64))


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["mlp", pytest.param("matrix", marks=pytest.mark.exhaustive)])
def test_delta_gradient_descent(memory):
    static, arrays = erasing(memory, T=64, dk=32, dtype=np.float32)
    text = compiled(static, arrays, "v5e", chunk=32)
    assert "miras_forward" in text
    assert "miras_backward" in text


@pytest.mark.slow
def test_several_inputs_and_outputs_of_a_token():
    static, arrays = mimo(T=32, H=1, dk=32, dtype=np.float32)
    text = compiled(static, arrays, "v5e", chunk=16)
    assert "miras_forward" in text
    assert "miras_backward" in text


# Each sixth of the rules in which every two members meet that can, the chips in turn; CI runs a
# tenth.
RULES = [case for case in space.cover() if space.build(case)[0].kinds()["memory"] != "kv"][::6]


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(n, marks=[pytest.mark.exhaustive] * (n % 2), id=space.name(case))
        for n, case in enumerate(RULES)
    ],
)
@pytest.mark.sample(0.2)
def test_a_sample_of_the_space(place):
    rule, options = space.build(RULES[place])
    how = {name: options[name] for name in ("refine", "exact") if name in options}
    inputs = random_inputs(rule, T=16, dk=8, dtype=np.float32)

    static = {"rule": rule, "exact": how.pop("exact", False)}
    function = gradient(static, chunk=8, backend="pallas", **how)
    chip = CHIPS[place % 3]
    text = compile_ahead(function, shapes({"inputs": inputs}), chip=chip).as_text()
    assert "miras_forward" in text
    assert "miras_backward" in text


# Widths of heads and chunks at their ends.
SIZES = [
    *(("titans_lmm", 32, 8, "v5e"), ("titans_lmm", 64, 256, "v6e"), ("titans_lmm", 256, 64, "v5p")),
    *(("gated_deltanet", 32, 8, "v5p"), ("gated_deltanet", 256, 256, "v5e")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "chunk", "chip"), SIZES)
@pytest.mark.sample(0.0)
def test_narrow_and_wide(name, width, chunk, chip):
    static, arrays = call(name, T=2 * chunk, H=1, dk=width, dtype=jnp.bfloat16)
    assert "miras_backward" in compiled(static, arrays, chip, chunk)
