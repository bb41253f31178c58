"""Each preset's rule against its paper's own recurrence, in float64, to 1e-9."""

import inspect

import numpy as np
import pytest

import miras
from miras.presets import PRESETS
from tests import cases
from tests.conformance import oracle_presets

# What the published recurrences leave out or fix: TTT's learned affine, the simplex's sum.
PUBLISHED = {"ttt_mlp": ("memory.affine=false",), "memora": ("retention.scale=1",)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_papers_recurrence(name, chunk):
    rule = miras.override(miras.preset(name).rule, *PUBLISHED.get(name, ()))
    W0, q, k, v, gates = cases.inputs(rule, T=21)
    if name == "retnet":
        (decay,) = rule.retention.gates()
        gates["log_decay"] = np.broadcast_to(decay.constant(2), gates["log_decay"].shape)
    published = getattr(oracle_presets, name)
    takes_link = "link_every" in inspect.signature(published).parameters
    options = {"link_every": "chunk"} if takes_link else {}
    want, last = published(W0, q, k, v, gates, chunk, **options)
    got, state = miras.scan(rule, W0, q, k, v, gates, chunk=chunk)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    if rule.retention.linked is None:
        for leaf in last:
            np.testing.assert_allclose(state.A[leaf], last[leaf], rtol=1e-9, atol=1e-9)
