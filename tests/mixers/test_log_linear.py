"""Log-linear memories against NumPy written from their recurrence, in float64."""

import jax
import numpy as np
import pytest
from flax import nnx

import miras
from miras.backends.pallas.interpreter import interpreted
from miras.mixers import LogLinearMixer, MixerConfig
from miras.testing import check_mixer
from tests.mixers import layers
from tests.mixers.layers import build, check_pieces, close, plain, run, tokens
from tests.mixers.oracle_log_linear import log_linear

pytestmark = pytest.mark.usefixtures("float64")

MATRIX = {"kind": "matrix"}
CASES = {
    "mamba2": ({"bias": "dot", "algorithm": "gd", "max_lr": 1.0}, {}),
    "gated_delta": (
        {"bias": "l2", "algorithm": "gd", "max_lr": 1.0, "order": "decay_first"},
        {"exact": True},
    ),
    "titans": ({"bias": "l2", "algorithm": "momentum", "max_lr": 1.0}, {"exact": True}),
}


def others(name):
    """All cases but one, for `make exhaustive`."""
    return [pytest.param(n, marks=pytest.mark.exhaustive) for n in CASES if n != name]


SAMPLE = ["gated_delta", *others("gated_delta")]


def made(name, chunk=4, levels=6, **more):
    parts, options = CASES[name]
    mixer = LogLinearMixer(levels=levels)
    return build(mixer, layers.rule(MATRIX, **parts), chunk=chunk, **options, **more)


def expected(name, params, x):
    parts, _ = CASES[name]
    p = plain(params)
    streams, gates = layers.memory_inputs(p, x, parts["max_lr"])
    fast = p["fast"]
    dl = np.tensordot(x, fast["rates"]["kernel"], axes=1) + fast["rate_bias"]
    lambdas = np.log1p(np.exp(fast["scale"] * dl))
    y = np.zeros(streams["v"].shape)
    for h in range(y.shape[1]):
        momentum = np.exp(gates["log_momentum"][:, h]) if "log_momentum" in gates else None
        y[:, h] = log_linear(
            fast["initial"]["w1"][h],
            *(streams[n][:, h] for n in "qkv"),
            np.exp(gates["log_decay"][:, h]),
            gates["lr"][:, h],
            lambdas[:, h],
            bias=parts["bias"],
            momentum=momentum,
            order=parts.get("order", "learn_first"),
        )
    return layers.output(p, y, x)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_the_recurrence_in_one_call_and_in_pieces(name):
    """Also beyond the first 2^(L-1) tokens, which share the last level."""
    graph, params = made(name)
    x = tokens(43)
    check_pieces(graph, params, x, (0, 5, 6, 7, 12, 17, 38, 43), expected(name, params, x[0]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("chunk", [1, 3, 16, 64])
@pytest.mark.parametrize("name", CASES)
def test_the_recurrence_at_other_chunks(name, chunk):
    graph, params = made(name, chunk, levels=9)
    x = tokens(150)
    close(run(graph, params, x)[0][0], expected(name, params, x[0]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mamba2", *others("mamba2")])
def test_documents_and_masked_tokens(name):
    graph, params = made(name)
    x = tokens(19, 2)
    ids = np.stack([np.repeat([1, 2, 3], [6, 2, 11]), np.repeat([1, 2], [8, 11])])
    mask = np.ones((2, 19), bool)
    mask[0, 12:15] = False
    mask[1, 9:] = False
    got, state = run(graph, params, np.where(mask[..., None], x, np.nan), None, ids, mask)
    more = tokens(19, 2, seed=1)
    went_on, _ = run(graph, params, more, state, ids[:, -1:].repeat(19, 1), None)
    for row in range(2):
        for id in np.unique(ids[row][mask[row]]):
            own = (ids[row] == id) & mask[row]
            own_x = x[row, own]
            if id == ids[row][mask[row]][-1]:
                own_x = np.concatenate([own_x, more[row]])
                close(went_on[row], expected(name, params, own_x)[-19:])
            close(got[row, own], expected(name, params, own_x)[: own.sum()])
    assert not got[~mask].any()


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_lambda_of_one_is_the_base_rule(name):
    parts, options = CASES[name]
    graph, params = build("memory", layers.rule(MATRIX, **parts), chunk=4, **options)
    x = tokens(23)
    want, _ = run(graph, params, x)
    levels, own = made(name)
    start = nnx.state(
        MixerConfig(LogLinearMixer(), layers.rule(MATRIX, **parts), **options).build(
            8, 2, nnx.Rngs(0)
        ),
        nnx.Param,
    )
    shared = nnx.to_pure_dict(own) | nnx.to_pure_dict(params)
    for leaf in ("rates", "rate_bias", "scale"):
        shared["fast"][leaf] = nnx.to_pure_dict(start)["fast"][leaf]
    nnx.replace_by_pure_dict(own, shared)
    np.testing.assert_allclose(run(levels, own, x)[0], want, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mamba2", *others("mamba2")])
def test_gradients_are_those_of_finite_differences(name):
    graph, params = made(name)
    layers.check_gradients(graph, params, tokens(11))


@pytest.mark.slow
def test_kernels_are_those_of_the_rule():
    """In jax's interpreter of a TPU's kernels, which compute in float32."""
    x, found = tokens(16).astype(np.float32), []
    for backend in ("xla", "pallas"):
        graph, params = made("gated_delta", chunk=8, backend=backend)
        params = jax.tree.map(lambda p: p.astype(np.float32), params)
        with interpreted():
            found.append(run(graph, params, x)[0])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "rule", "named"),
    [
        ({}, {"memory": "mlp"}, "one linear map"),
        ({}, {"algorithm": "newton"}, "one linear map"),
        ({}, {"retention": {"kind": "l2", "granularity": "key_value"}}, "log_decay_value"),
        ({"exact": False}, {}, "the same at any chunk"),
        ({"mixer": {"kind": "log_linear", "levels": 1}}, {}, "levels=1"),
    ],
)
def test_what_is_refused(options, rule, named):
    given = {
        "mixer": "log_linear",
        "exact": rule.get("algorithm") is None and not rule.get("memory"),
    }
    parts = miras.from_dict(miras.Rule, {"memory": "matrix", "bias": "l2"} | rule)
    with pytest.raises(miras.ConfigError, match=named):
        MixerConfig(**(given | options), rule=parts).check("")


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_the_contract_of_a_mixer(name):
    parts, options = CASES[name]
    rule = layers.rule(MATRIX, **parts)
    check_mixer(MixerConfig(mixer=LogLinearMixer(levels=4), rule=rule, chunk=4, **options))
