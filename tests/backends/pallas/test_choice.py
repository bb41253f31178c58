"""When there is a kernel, when there is none, and what is said of it."""

import dataclasses
import logging

import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.backends.base import Alignment, ScanInputs
from miras.backends.dispatch import BACKENDS
from miras.backends.pallas.backend import Pallas
from miras.backends.pallas.interpreter import interpreted
from miras.backends.pallas.tpu.plan import TpuLimits
from miras.bias import L2Loss
from miras.config import ConfigError
from miras.rule.options import ScanOptions
from miras.runtime.log import log_once
from miras.testing import random_inputs
from tests.backends.pallas.calls import call


def run(rule, chunk=8, T=16, **options):
    inputs = random_inputs(rule, T=T, dk=4, dtype=np.float32)
    return miras.scan(rule, *inputs, chunk=chunk, **options)


@dataclasses.dataclass(frozen=True)
class Ranked(L2Loss):
    """A bias whose derivative sorts."""

    def residual(self, pred, target, gates=None):
        """What no kernel can have."""
        return jnp.sort(pred - target, axis=-1)


@pytest.fixture
def ranked():
    rule = miras.preset("ttt_linear").rule
    return dataclasses.replace(rule, bias=Ranked())


def test_without_a_tpu_it_is_an_error():
    with pytest.raises(ConfigError, match=r"needs a TPU or a GPU, and jax computes on cpu here"):
        run(miras.preset("ttt_linear").rule, backend="pallas")


def test_an_operation_that_no_kernel_has_names_the_part_and_the_line(ranked):
    with interpreted(), pytest.raises(ConfigError) as error:
        run(ranked, backend="pallas")
    said = str(error.value)
    assert "bias" in said
    assert "test_choice.py:" in said
    assert "residual)" in said
    assert "'sort'" in said


def test_a_chunk_that_is_no_multiple_of_a_registers_rows():
    with interpreted(), pytest.raises(ConfigError, match="chunk=12 is no multiple of 8"):
        run(miras.preset("ttt_linear").rule, chunk=12, backend="pallas")


def test_auto_falls_back_and_says_so_once(ranked, monkeypatch, caplog):
    on_this_device(monkeypatch)
    caplog.set_level(logging.INFO, "miras")
    with interpreted():
        y, _ = run(ranked)
        run(ranked, T=24)
    np.testing.assert_array_equal(y, run(ranked, backend="xla")[0])
    assert len([record for record in caplog.records if "sort" in record.message]) == 1
    assert "not backend pallas" in caplog.records[0].message


def test_auto_takes_a_kernel_and_says_which(monkeypatch, caplog):
    on_this_device(monkeypatch)
    caplog.set_level(logging.INFO, "miras")
    with interpreted():
        run(miras.preset("ttt_linear").rule)
    assert "backend pallas" in caplog.records[0].message


def on_this_device(monkeypatch):
    """`auto` asks for kernels here, which the interpreter then runs."""
    monkeypatch.setitem(BACKENDS, "pallas", BACKENDS["pallas"]._replace(prefers=("cpu",)))
    log_once.cache_clear()


@pytest.mark.slow
def test_little_vmem_takes_fewer_heads_then_no_kernel():
    """As the room shrinks."""
    static, arrays = call("titans_lmm", T=64, H=2, dk=64, dtype=np.float32)
    inputs, options = ScanInputs(*arrays["inputs"]), ScanOptions(chunk=64)
    with interpreted():
        wide, narrow, none = (
            Pallas(TpuLimits(vmem=2**n)).plan(static["rule"], inputs, options, Alignment())
            for n in (27, 23, 16)
        )
    assert (wide.tiling.tile, wide.planned.layout.heads) == (64, 2)
    assert (narrow.tiling.tile, narrow.planned.layout.heads) == (64, 1)
    assert "MiB of VMEM" in none.reason
