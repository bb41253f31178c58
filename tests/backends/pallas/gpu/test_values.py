"""GPU kernels in jax's interpreter of them, against `reference`."""

import functools

import numpy as np
import pytest

from miras.backends.pallas.gpu.plan import RegisterBudget
from tests.backends.pallas.calls import agree, call

SIZES = {"B": 1, "T": 11, "H": 1, "dk": 3}  # no power of two, a tile that is not full
SHORT = SIZES | {"T": 7}
CHUNK = 4


ANY_SIZE = RegisterBudget(one=2**40, all=2**40, blocks=2**40)
CALLS_OF_ONE_TILE = ANY_SIZE._replace(all=0)
IN_BLOCKS = RegisterBudget(one=0, all=0, blocks=2**40, block=4)  # whatever would fit

compare = functools.partial(agree, "gpu", chunk=CHUNK)


# One of each kind of step: slices in blocks, a solve, two norms; in calls of a tile.
SOME = ("gla", "gated_deltanet", "ttt_linear")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", SOME)
def test_calls_of_one_tile(name):
    compare(*call(name, **SIZES), CALLS_OF_ONE_TILE)


@pytest.mark.usefixtures("everywhere")
def test_all_tiles_in_one_call():
    compare(*call("linear_attention", **SIZES))


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_segments_masks_and_a_state():
    """Several rows and heads, too: each must find its own."""
    static, arrays = call("deltanet", B=2, T=8, H=2, dk=4)
    mask = np.random.default_rng(0).uniform(size=(2, 8)) < 0.8
    segments = np.asarray([[0] * 4 + [1] * 4, [0] * 8])
    compare(static, arrays, mask=mask, segment_ids=segments)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_blocks_of_hidden_units():
    """Several rows and heads, a chunk of two tiles, segments and masks: with momentum's buffers."""
    static, arrays = call("titans_lmm", B=2, T=8, H=2, dk=4)
    mask = np.random.default_rng(0).uniform(size=(2, 8)) < 0.8
    segments = np.asarray([[0] * 4 + [1] * 4, [0] * 8])
    compare(static, arrays, IN_BLOCKS._replace(tile=2), mask=mask, segment_ids=segments)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_keys_in_blocks():
    """Of a matrix memory, whose units are in keys, answers and gates as well."""
    budget = IN_BLOCKS._replace(tile=4, columns=4)
    compare(*call("gated_deltanet", B=2, T=8, H=2, dk=8), budget)


# Every preset with hidden units: sums over them in norms and softmaxes are several stages.
DEEP = ("ttt_mlp", "moneta", "yaad", "memora")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", DEEP)
@pytest.mark.sample(0.0)
def test_presets_in_blocks(name):
    compare(*call(name, **SHORT), IN_BLOCKS)


# The other presets that are small enough, and of those that are not, one for each operation that
# only they need: loops, gathers, stacks.
OTHERS = ("retnet", "mamba2", "hgrn2", "comba", "rwkv7", "longhorn", "mesa", "omeganet")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.sample(0.0)
def test_other_presets(name):
    compare(*call(name, **SHORT), ANY_SIZE)
