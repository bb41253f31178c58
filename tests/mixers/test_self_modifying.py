"""Self-modifying memories against NumPy written from their equations, and what they reduce to."""

import numpy as np
import pytest
from flax import nnx

import miras
from miras.mixers import MixerConfig
from miras.testing import check_mixer
from tests.mixers import layers, oracle_self_modifying
from tests.mixers.layers import build, check_gradients, check_pieces, close, plain, run, tokens

pytestmark = pytest.mark.usefixtures("float64")

MLP = {"kind": "mlp", "depth": 2, "expansion": 1, "activation": "gelu", "residual": True,
       "norm": "layer", "eps": 0.1}  # fmt: skip
MATRIX = {"kind": "matrix"}
ALL = ("k", "v", "eta", "alpha")
CASES = {
    "mlp": ({"span": 4}, MLP),
    "matrix": ({"span": 2, "form": "proximal"}, MATRIX),
    "static_keys": ({"span": 2, "static": ("k", "eta"), "self_values": False}, MATRIX),
    "projection": ({"span": 6, "static": ("v", "alpha"), "form": "projection"}, MLP),
}
QUICK = ("mlp",)
SAMPLE = [
    pytest.param(name, id=name, marks=[pytest.mark.exhaustive] * (name not in QUICK))
    for name in CASES
]


def made(name, chunk=2, span=None):
    options, memory = CASES[name]
    mixer = {
        "kind": "self_modifying",
        "projections_chunk": span or options["span"],
        "static": options.get("static", ()),
        "self_values": options.get("self_values", True),
    }
    return build(mixer, rule_of(memory, options.get("form", "gradient")), chunk=chunk)


def rule_of(memory, form="gradient"):
    parts = miras.to_dict(layers.rule(memory, algorithm="gd", max_lr=1.0, read="snapshot"))
    parts["algorithm"] |= {"kind": "dgd", "form": form}
    return miras.from_dict(miras.Rule, parts)


def expected(name, params, x, chunk=2, span=None):
    options, memory = CASES[name]
    p = plain(params)
    given = options | {"span": span or options["span"]}
    y = oracle_self_modifying.reads(p, x, memory=memory, chunk=chunk, **given)
    return layers.output(p, y, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_the_equations_in_one_call_and_in_pieces(name):
    graph, params = made(name)
    x = tokens(15)
    check_pieces(graph, params, x, (0, 5, 6, 13, 15), expected(name, params, x[0]))


def test_the_kept_state_has_all_heads_of_a_memory_first():
    """As parameters have, and as sessions were saved: on the way, heads come first."""
    layer = nnx.merge(*made("matrix"))
    state = layer.init_state(3, "float64").projections
    for name, W0 in layer.made.initial.items():
        for row in state.A[name]:
            np.testing.assert_array_equal(row, W0[...])
        inside = layer.made.by_head(state).A[name]
        heads, count = layer.heads, len(layer.made.names)
        np.testing.assert_array_equal(inside[:, :count], state.A[name][:, ::heads])
        np.testing.assert_array_equal(
            layer.made.by_memory(layer.made.by_head(state)).A[name][0], row
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize("chunk", [1, 16, 64])
@pytest.mark.parametrize("name", CASES)
def test_the_equations_at_other_chunks(name, chunk):
    graph, params = made(name, chunk, 2 * chunk)
    x = tokens(3 * chunk + 3)
    close(run(graph, params, x)[0][0], expected(name, params, x[0], chunk, 2 * chunk))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["static_keys", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("mlp",))]
)
def test_documents_and_masked_tokens(name):
    """Documents that begin inside chunks, and padding inside a row."""
    graph, params = made(name)
    x = tokens(12, 2)
    ids = np.stack([np.repeat([0, 1, 2], [5, 1, 6]), np.repeat([1, 2], [8, 4])])
    mask = np.ones((2, 12), bool)
    mask[0, 7:9] = False
    mask[1, 10:] = False
    got, _ = run(graph, params, np.where(mask[..., None], x, np.nan), None, ids, mask)
    for row in range(2):
        for id in np.unique(ids[row]):
            own = (ids[row] == id) & mask[row]
            close(got[row, own], expected(name, params, x[row, own]))
    assert not got[~mask].any()


def test_static_projections_are_titans_with_dgd():
    """All projections static and values not self-made: the layer of the rule."""
    x = tokens(11)
    graph, params = build("memory", rule_of(MLP), chunk=4)
    want, _ = run(graph, params, x)
    mixer = {"kind": "self_modifying", "static": ALL, "self_values": False}
    hope, own = build(mixer, rule_of(MLP), chunk=4)
    nnx.replace_by_pure_dict(own, nnx.to_pure_dict(params))
    close(run(hope, own, x)[0], want)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    graph, params = made(name)
    check_gradients(graph, params, tokens(7))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_contract(name):
    options, memory = CASES[name]
    mixer = {"kind": "self_modifying", "projections_chunk": 4}
    mixer |= {n: options[n] for n in ("static", "self_values") if n in options}
    check_mixer(MixerConfig(mixer=mixer, rule=rule_of(memory), chunk=2), heads=1, width=4)


BAD = {
    "M.mixer.projections_chunk=24": "projections_chunk=24 must be a multiple of model.chunk=16",
    "memory=kv algorithm=nonparametric bias=l2": "memory 'kv' keeps tokens",
    "layer.lr_by_position=true": "does not support model.layer.lr_by_position=true",
    "layer.keys=corrected": "model.layer.keys is 'corrected': use 'plain'",
    "bias=dot exact=true algorithm=gd read=token": "a rule knows no chunk",
}


@pytest.mark.parametrize("words", BAD)
def test_what_does_not_fit_is_told_in_one_sentence(words):
    with pytest.raises(miras.ConfigError) as told:
        miras.override(
            miras.preset("linear_attention"), "architecture=self_modifying", *words.split()
        )
    assert BAD[words] in str(told.value)
