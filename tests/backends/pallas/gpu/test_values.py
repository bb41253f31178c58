"""GPU kernels in jax's interpreter of them, against `reference`."""

import functools

import numpy as np
import pytest

from miras.backends.pallas.gpu import plan as gpu_plan
from tests.backends.pallas.calls import agree, call

SIZES = {"B": 1, "T": 11, "H": 1, "dk": 3}  # no power of two, a tile that is not full
CHUNK = 4


def give_room(monkeypatch, looped=2**40):
    """To whatever size; in one call for all tiles, or with looped=0 one for each."""
    monkeypatch.setattr(gpu_plan.Room, "at", lambda width: gpu_plan.Room(2**40, looped, 2**40))


compare = functools.partial(agree, "gpu", chunk=CHUNK)


# One of each kind of step: slices in blocks, a solve, two norms; in calls of a tile.
SOME = ("gla", "gated_deltanet", "ttt_linear")


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", SOME)
def test_calls_of_one_tile(name, monkeypatch):
    give_room(monkeypatch, looped=0)
    compare(*call(name, **SIZES))


@pytest.mark.usefixtures("everywhere")
def test_all_tiles_in_one_call():
    compare(*call("linear_attention", **SIZES))


@pytest.mark.usefixtures("everywhere")
def test_segments_masks_and_a_state():
    """Several rows and heads, too: each must find its own."""
    static, arrays = call("deltanet", B=2, T=8, H=2, dk=4)
    mask = np.random.default_rng(0).uniform(size=(2, 8)) < 0.8
    segments = np.asarray([[0] * 4 + [1] * 4, [0] * 8])
    compare(static, arrays, mask=mask, segment_ids=segments)


def in_blocks(monkeypatch):
    """Of 4 hidden units, whatever would fit."""
    give_room(monkeypatch)
    monkeypatch.setattr(gpu_plan, "BLOCK", 4)
    monkeypatch.setattr(gpu_plan, "alive", lambda program: 2**41 if program.units is None else 1)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_blocks_of_hidden_units(monkeypatch):
    """Several rows and heads, a chunk of two tiles, segments and masks: with momentum's buffers."""
    in_blocks(monkeypatch)
    monkeypatch.setattr(gpu_plan, "LEAST", 2)
    static, arrays = call("titans_lmm", B=2, T=8, H=2, dk=4)
    mask = np.random.default_rng(0).uniform(size=(2, 8)) < 0.8
    segments = np.asarray([[0] * 4 + [1] * 4, [0] * 8])
    compare(static, arrays, mask=mask, segment_ids=segments)


@pytest.mark.usefixtures("everywhere")
def test_keys_in_blocks(monkeypatch):
    """Of a matrix memory, whose units are in keys, answers and gates as well."""
    in_blocks(monkeypatch)
    monkeypatch.setattr(gpu_plan, "LEAST", 4)  # value columns, and tokens of a tile
    compare(*call("gated_deltanet", B=2, T=8, H=2, dk=8))


# Every preset with hidden units: sums over them in norms and softmaxes are several stages.
DEEP = ("ttt_mlp", "moneta", "yaad", "memora")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", DEEP)
def test_presets_in_blocks(name, monkeypatch):
    in_blocks(monkeypatch)
    compare(*call(name, **SIZES))


# The other presets that are small enough, and of those that are not, one for each operation that
# only they need: loops, gathers, stacks.
OTHERS = ("retnet", "mamba2", "hgrn2", "comba", "rwkv7", "longhorn", "mesa", "omeganet")


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("name", OTHERS)
def test_other_presets(name, monkeypatch):
    give_room(monkeypatch)
    compare(*call(name, **SIZES))
