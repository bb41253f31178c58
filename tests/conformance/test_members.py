"""Every member of every axis against the NumPy oracle, per token, in float64, to 1e-9."""

import functools

import jax
import numpy as np
import pytest

import miras
from miras.bias import Bias
from miras.config import to_dict
from miras.memory import Memory
from miras.optim import Algorithm
from miras.retention import Retention
from tests import selection
from tests.conformance import members, oracle, oracle_atlas
from tests.conformance.members import CASES, COMBINED, MEMBERS

pytestmark = pytest.mark.usefixtures("float64")

MASK = np.random.default_rng(1).uniform(size=(1, 37)) > 0.2
MASK[0, 15] = False  # the last token of the first chunk
AXES = ("memory", "bias", "retention", "algorithm")


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def agree(case, chunk, backend="xla", **labels):
    """Reads and final state of a case are the oracle's; labels are mask and segment_ids."""
    rule, shape = case.rule, next(iter(labels.values())).shape if labels else (1, 37)
    given = members.inputs(case, B=shape[0], T=shape[1]) | labels
    options = {"chunk": chunk, "refine": case.refine, "exact": case.exact}
    scan = functools.partial(miras.scan, rule, backend=backend, **options)
    got, state = jax.jit(lambda x: scan(**x))(given)
    parts = {axis: to_dict(getattr(rule, axis)) for axis in AXES}
    want, final = oracle.run(**parts, order=rule.order, read=rule.read, **options, **given)
    assert np.isfinite(want).all()
    close(got, want)
    for buffer, leaves in final.items():
        kept = getattr(state, buffer)
        if kept is not None:
            assert sorted(kept) == sorted(leaves)
            for name, leaf in leaves.items():
                close(kept[name], leaf)


# Every member, every bias with its options; `make exhaustive` runs the other cases.
SAMPLE = selection.covering(
    {name: {*c.rule.kinds().items(), repr(c.rule.bias)} for name, c in MEMBERS.items()}
)


@pytest.mark.parametrize("name", selection.sampled(MEMBERS, SAMPLE))
def test_a_member_is_the_published_recurrence(name):
    agree(MEMBERS[name], 1)
    agree(MEMBERS[name], 16, mask=MASK)


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.sample(0.12)
def test_members_together_are_the_published_recurrence(name):
    agree(COMBINED[name], 16)


@pytest.mark.parametrize("name", ["terms-multi_step", "terms-k_write-lr_key", "refine2-mlp"])
def test_online(name):
    agree(CASES[name], 1)


BY_TOKEN = (
    "mlp", "algorithm-omega", "muon_sum", "retention-net_hard_chunk", "retention-kl_coupled_chunk",
    "retention-f_hellinger_1", "terms-k_write-multi_step", "refine2-lq", "gsa", "algorithm-newton",
    "averaged-mlp", "refine2-dgd",
)  # fmt: skip


@pytest.mark.parametrize("name", BY_TOKEN)
def test_reference_is_the_published_recurrence(name):
    agree(CASES[name], 16, "reference")


# A representative of each family, in chunks of 4 that segments and masks cut anywhere.
CUT = (
    "mlp", "retention-lq_chunk", "retention-kl_chunk", "retention-rows_chunk", "lact",
    "retention-f_kl_0", "key_value-momentum", "gsa", "mlp-omega", "rms_chunk", "algorithm-newton",
    "algorithm-multi_step", "refine2-mlp", "exact-momentum-learn_first", "exact-kda-decay_first",
    "snapshot-kl_chunk", "decay_first-key", "refine2-dgd", "trapezoidal-features",
)  # fmt: skip


@pytest.mark.parametrize("name", CUT)
@pytest.mark.sample(0.5)
def test_masks_and_segments_anywhere(name):
    mask = np.random.default_rng(1).uniform(size=(2, 23)) > 0.3
    segments = np.stack([np.repeat([3, 1, 2], [5, 11, 7]), np.repeat([0, 9], [16, 7])])
    agree(CASES[name], 4, mask=mask, segment_ids=segments.astype(np.int32))


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("window", [None, 5])
def test_kv_is_softmax_attention(window, scale):
    memory = {"kind": "kv", "window": window, "scale": scale}
    rule = miras.Rule(memory, algorithm="nonparametric")
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 23, 2, d)) for d in (4, 4, 3))
    mask = rng.uniform(size=(2, 23)) > 0.3
    ids = np.stack([np.repeat([3, 1, 3], [5, 11, 7]), np.repeat([0, 9], [16, 7])])
    labels = {"mask": mask, "segment_ids": ids}
    scaled = q if scale is None else q * scale * 2.0  # the oracle's scale is 1 / sqrt(4)
    if window is None:
        want = oracle_atlas.transformer(scaled, k, v, **labels)
    else:
        want = oracle_atlas.sliding_window(scaled, k, v, window=window, **labels)
    close(miras.scan(rule, {}, q, k, v, **labels)[0], want)


def test_every_member_has_a_case():
    rules = [case.rule for case in CASES.values()]
    rules += [miras.Rule("kv", algorithm="nonparametric")]
    for contract in (Memory, Bias, Retention, Algorithm):
        registry = contract.registry
        shown = {rule.kinds()[registry.axis] for rule in rules}
        own = {n for n in registry.names() if registry.get(n).__module__.startswith("miras.")}
        assert own <= shown, f"{registry.axis} {sorted(own - shown)} have no case in members.py"
