"""A head taken apart by value columns is the head."""

import numpy as np
import pytest

import miras
from miras.backends.dispatch import BACKENDS, RegisteredBackend
from miras.backends.pallas.gpu.columns import independent, split_columns
from miras.backends.xla.backend import Tiling, Xla
from miras.backends.xla.loop import scan_tiles
from miras.testing.expect import expect_close
from tests.backends.pallas.calls import NAMES, call, value_and_gradients

APART = [name for name in NAMES if independent(miras.preset(name).rule)]


def test_which():
    """The Hebbian ones and the delta rules without a rate or a decay per value channel."""
    others = {"dfw", "longhorn", "mesa", "ttt_linear", "ttt_mlp", "titans_lmm", "moneta", "yaad"}
    others |= {"memora", "omeganet", "atlas", "atlas++", "lact", "gated_deltanet2", "trellis"}
    others |= {name for name in NAMES if miras.preset(name).rule.carries(1, 1)}
    assert set(APART) == set(NAMES) - others


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gla", "rwkv7", "deltaproduct"])
def test_columns_are_heads_of_their_own(name, monkeypatch):
    tiling = Tiling(loop=split_columns(scan_tiles, 2))
    monkeypatch.setitem(BACKENDS, "columns", RegisteredBackend(lambda: Xla(tiling)))
    static, arrays = call(name, B=2, T=5, H=2, dk=4, dtype=np.float32)
    want = value_and_gradients(static, arrays, backend="xla", chunk=4)
    got = value_and_gradients(static, arrays, backend="columns", chunk=4)
    expect_close(got, want, "columns", 2e-5)
