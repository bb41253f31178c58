"""Every member and both backends against the NumPy oracle, per token, in float64, to 1e-9."""

import numpy as np
import pytest

import miras
from miras.config import to_dict
from tests import cases
from tests.conformance import oracle

pytestmark = pytest.mark.usefixtures("float64")

DEFAULT = {"memory": "mlp", "bias": "l2", "retention": "l2", "algorithm": "momentum"}


def rules() -> dict[str, miras.Rule]:
    """Each member in turn beside the default parts, on a matrix and on an MLP."""
    chosen = {}
    for memory in ("matrix", "mlp"):
        base = DEFAULT | {"memory": cases.MEMORIES[memory]}
        for axis, members in [
            ("bias", cases.BIASES),
            ("retention", cases.RETENTIONS),
            ("algorithm", cases.ALGORITHMS),
        ]:
            for name, part in members.items():
                chosen[f"{memory}-{name}"] = miras.Rule(**base | {axis: part})
        chosen[f"{memory}-decay_first"] = miras.Rule(**base, order="decay_first")
    for name, memory in (cases.MEMORIES | cases.MLPS).items():
        if name != "affine":
            chosen[name] = miras.Rule(**DEFAULT | {"memory": memory, "bias": "huber"})
    return chosen


RULES = rules()


def agree(rule, chunk, backend, *, T=37, mask=None, segment_ids=None):
    W0, q, k, v, gates = cases.inputs(rule, T=T)
    got, state = miras.scan(
        rule, W0, q, k, v, gates, chunk=chunk, backend=backend, mask=mask, segment_ids=segment_ids
    )
    parts = {a: to_dict(getattr(rule, a)) for a in ("memory", "bias", "retention", "algorithm")}
    want, final = oracle.run(
        **parts, order=rule.order, W0=W0, q=q, k=k, v=v, gates=gates, chunk=chunk,
        mask=mask, segment_ids=segment_ids,
    )  # fmt: skip
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    for name, leaf in final["A"].items():
        np.testing.assert_allclose(state.A[name], leaf, rtol=1e-9, atol=1e-9)
        if state.S is not None:
            np.testing.assert_allclose(state.S[name], final["S"][name], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("name", RULES)
def test_xla_is_the_published_recurrence(name, chunk):
    agree(RULES[name], chunk, "xla")


@pytest.mark.parametrize("name", [n for n in RULES if n.startswith("matrix")])
def test_reference_is_the_published_recurrence(name):
    agree(RULES[name], 16, "reference", T=19)


@pytest.mark.parametrize("backend", ["xla", "reference"])
@pytest.mark.parametrize(
    "name", ["mlp-l2", "matrix-lq_chunk", "mlp-kl_chunk", "matrix-decay_first"]
)
def test_masks_and_segments_anywhere(name, backend):
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=(2, 23)) > 0.3
    segments = np.stack([np.repeat([3, 1, 2], [5, 11, 7]), np.repeat([0, 9], [16, 7])])
    agree(RULES[name], 4, backend, T=23, mask=mask)
    agree(RULES[name], 4, backend, T=23, mask=mask, segment_ids=segments.astype(np.int32))
