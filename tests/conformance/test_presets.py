"""Each preset's rule against its paper's own recurrence, in float64, to 1e-9, at any chunk."""

import inspect
import itertools

import numpy as np
import pytest

import miras
from miras.layers.keys import Associations
from miras.testing import random_inputs
from tests.conformance import (
    oracle,
    oracle_atlas,
    oracle_keys,
    oracle_linear,
    oracle_presets,
    oracle_slots,
)
from tests.rules import RULES

pytestmark = pytest.mark.usefixtures("float64")

# What the published recurrences leave out or fix: the simplex's sum, features.
PUBLISHED = {
    "memora": ("retention.scale=1", "memory.eps=1e-6"),
    **dict.fromkeys(("titans_lmm", "yaad", "moneta", "trellis"), ("memory.eps=1e-6",)),
    "mesa": ("algorithm.iterations=12",),
}
INNER = {"omeganet": "mlp", "atlas": "mlp"}
NAMES = {"atlas++": None, "rwkv7": None, "comba": None, "transformer": None, "sliding_window": None}
B, H, D = 2, 2, 4


def rule_of(name: str) -> miras.Rule:
    """The preset's rule, as published, on a memory of the oracle's size."""
    rule = miras.override(miras.preset(name).rule, *PUBLISHED.get(name, ()))
    if name in INNER:
        memory = {"kind": "mlp", "depth": 2, "expansion": 4}
        rule = miras.from_dict(miras.Rule, miras.to_dict(rule) | {"memory": memory})
    return rule


def inputs(rule: miras.Rule, T: int, *, terms: int | None = None):
    """W0, streams and gates, at rates of which an error would show."""
    return random_inputs(rule, B=B, T=T, H=H, dk=D, terms=terms, spans={"lr": (0.02, 0.2)})


def close(got, want):
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def published(name: str):
    if name == "deltanet":  # oracle_presets has its chunked form
        return oracle_linear.deltanet_exact
    for module in (oracle_linear, oracle_keys, oracle_atlas, oracle_presets, oracle_slots):
        if hasattr(module, name):
            return getattr(module, name)
    raise AssertionError(f"no oracle for preset {name!r}")


def against(name: str, chunk: int, T: int, average=None, **options):
    """Run a preset and its oracle on the same numbers."""
    rule, exact = rule_of(name), miras.preset(name).exact
    terms = rule.algorithm.terms if name == "deltaproduct" else None
    W0, q, k, v, gates = inputs(rule, T, terms=terms)
    oracle_gates = dict(gates)
    if name in ("retnet", "lightning"):
        (decay,) = rule.retention.gates()
        gates["log_decay"] = np.broadcast_to(decay.constant(H), (B, T, H))
        oracle_gates = dict(gates)
    if name in ("mamba2", "mamba3"):  # the paper's a_t is exp(-A dt_t)
        oracle_gates["log_decay"] = gates["log_decay"] * gates["lr"]
    if name in ("hgrn2", "gated_deltanet2"):  # whose writes have no rate
        gates["lr"] = np.ones_like(gates["lr"])
    oracle = published(name)
    if "link_every" in inspect.signature(oracle).parameters:
        options["link_every"] = "chunk"
    want, last = oracle(W0, q, k, v, oracle_gates, chunk, **options)
    got, state = miras.scan(rule, W0, q, k, v, gates, chunk=chunk, exact=exact, average=average)
    close(got, want)
    if rule.retention.linked != "chunk" or rule.retention.proximal:
        for leaf in last:
            if name != "mesa":  # whose state is the two sums, not their quotient
                close(state.A[leaf], last[leaf])


OPTIONS = {
    "mesa": {"ridge": 1.0},
    "omeganet": {"window": 4},
    "atlas": {"window": 4},
    "lact": {"norm_over": "in"},
}


OTHERS = [name for name in RULES if name not in NAMES]


@pytest.mark.parametrize("name", OTHERS)
def test_a_preset_is_its_papers_recurrence(name):
    against(name, 16, 21, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("case", [*itertools.product(OTHERS, (1, 64))], ids="{0[0]}-{0[1]}".format)
@pytest.mark.sample(0.15)
def test_a_preset_is_its_papers_recurrence_at_other_chunks(case):
    name, chunk = case
    against(name, chunk, 70 if chunk == 64 else 21, **OPTIONS.get(name, {}))


@pytest.mark.parametrize("name", ["ttt_linear", "ttt_mlp"])
def test_ttt_with_a_learned_token_idx(name):
    """The official code's, clamped at 0: some rows of a mini-batch take no step at all."""
    learned = np.random.default_rng(1).normal(size=16) * 0.3
    token_idx = np.maximum(0.0, 1 / np.arange(1, 17) + learned)
    assert (token_idx == 0).any()
    against(name, 16, 37, average=token_idx, token_idx=token_idx)


@pytest.mark.parametrize("chunk", [1, 16, 64])
@pytest.mark.parametrize("name", ["omeganet", "atlas", "atlas++"])
def test_a_preset_with_its_own_features_and_memory(name, chunk):
    rule = miras.preset(name).rule
    W0, *streams, gates = inputs(rule, 70 if chunk == 64 else 21)
    q, k, v = streams
    axes = ("memory", "bias", "retention", "algorithm")
    parts = {axis: miras.to_dict(getattr(rule, axis)) for axis in axes}
    call = {"W0": W0, "q": q, "k": k, "v": v, "gates": gates, "chunk": chunk}
    want, last = oracle.run(**parts, order=rule.order, read=rule.read, **call)
    got, state = miras.scan(rule, **call)
    close(got, want)
    for leaf in last["A"]:
        close(state.A[leaf], last["A"][leaf])


@pytest.mark.parametrize("chunk", [1, 16, 64])
def test_rwkv7(chunk):
    rule = miras.preset("rwkv7").rule
    W0, q, kap, v, gates = inputs(rule, 70)
    rng = np.random.default_rng(5)
    a, ktilde = rng.uniform(0, 1, size=kap.shape), rng.normal(size=kap.shape)
    want, last = oracle_linear.rwkv7(W0, q, kap, a, ktilde, v, gates["log_decay"])
    got, state = miras.scan(
        rule,
        W0,
        q,
        np.stack([kap, np.zeros_like(kap)], 3),
        np.stack([np.zeros_like(v), v], 3),
        {"log_decay": gates["log_decay"]},
        k_write=np.stack([a * kap, ktilde], 3),
        chunk=chunk,
        exact=True,
    )
    close(got, want)
    close(state.A["w1"], last["w1"])


@pytest.mark.parametrize("chunk", [1, 16, 64])
def test_comba(chunk):
    rule = miras.preset("comba").rule
    W0, q, k, v, gates = inputs(rule, 70)
    p = 0.7 * k
    want, _ = oracle_linear.comba(W0, q, p, k, v, gates, chunk, order="learn_first")
    got, _ = miras.scan(rule, W0, q, p, v, gates, k_write=k, chunk=chunk, exact=True)
    close(got, want)


@pytest.mark.parametrize("backend", ["xla", "reference"])
@pytest.mark.parametrize("name", ["transformer", "sliding_window"])
def test_attention(name, backend):
    rule = miras.override(miras.preset(name).rule, *(["memory.window=5"] if "win" in name else []))
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(B, 23, H, D)) for _ in range(3))
    mask = rng.uniform(size=(B, 23)) > 0.3
    ids = np.stack([np.repeat([3, 1, 3], [5, 11, 7]), np.repeat([0, 9], [16, 7])])
    options = {"window": 5} if "win" in name else {}
    want = getattr(oracle_atlas, name)(q, k, v, mask=mask, segment_ids=ids, **options)
    state, parts = None, []
    for start, stop in ((0, 9), (9, 10), (10, 23)):
        cut = slice(start, stop)
        y, state = miras.scan(
            rule, {}, q[:, cut], k[:, cut], v[:, cut], mask=mask[:, cut],
            segment_ids=ids[:, cut], state=state, backend=backend,
        )  # fmt: skip
        parts.append(y)
    close(np.concatenate(parts, 1), want)


def test_every_preset_has_an_oracle_or_a_part_of_one():
    # atlas++ is atlas with another memory: see the test of features and memories above.
    assert set(Associations._fields) == {"q", "k", "v", "k_write"}
    for name in set(RULES) - {"atlas++"}:
        assert published(name)
