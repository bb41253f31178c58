"""What a run prints first of its model, for any pattern of blocks."""

import pathlib

import pytest

import miras
from miras.train import RunConfig
from miras.train.summary import summary_lines

YAAD = "yaad (mlp memory, huber bias, l2 retention, gd)"
DELTA = "gated_deltanet (matrix memory, l2 bias, l2 retention, gd)"
MODELS = {
    (): YAAD,
    ("pattern=A",): "full attention",
    ("blocks.N=gated_deltanet", "pattern=N"): DELTA,
    ("N=gated_deltanet", "S.window=9", "N.bias=dot", "pattern=M N M S"): f"M N M S; M: {YAAD}; "
    "N: matrix memory, dot bias, l2 retention, gd; S: sliding-window attention, windows of 9",
    ("M.mixer=mag",): f"memory as a gate, a window of 64: {YAAD}",
}


@pytest.mark.parametrize(("words", "model"), MODELS.items(), ids=[" ".join(w) for w in MODELS])
def test_every_block_is_named(words, model):
    config = RunConfig(model=miras.override(miras.preset("yaad"), *words))
    first = next(summary_lines(config, {}, pathlib.Path("run")))
    assert first == f"model: {model}; layers: 4, width: 128, heads: 4"
