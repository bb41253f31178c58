"""Sweeps are data: what points they hold, and how a point is written for `override`."""

import pytest

import miras
from miras.config import sweep
from miras.errors import ConfigError
from miras.train import RunConfig

BIAS, CHUNK = sweep.axis("bias", ["l2", "lp"]), sweep.axis("chunk", [16, 64])


def test_product_zip_and_chain():
    l2, lp = {"bias": "l2"}, {"bias": "lp"}
    assert sweep.product(BIAS, CHUNK) == (
        {**l2, "chunk": 16}, {**l2, "chunk": 64}, {**lp, "chunk": 16}, {**lp, "chunk": 64},
    )  # fmt: skip
    assert sweep.zip_points(BIAS, CHUNK) == ({**l2, "chunk": 16}, {**lp, "chunk": 64})
    assert sweep.chain(BIAS, CHUNK) == (l2, lp, {"chunk": 16}, {"chunk": 64})
    assert sweep.product() == ({},)
    nested = sweep.product(sweep.zip_points(BIAS, CHUNK), sweep.chain(sweep.axis("width", [8])))
    assert nested[1] == {"bias": "lp", "chunk": 64, "width": 8}


def test_points_are_written_as_override_takes_them():
    point = {
        "bias.p": 2.5,
        "train.warmup": None,
        "remat": False,
        "bias": "lp",
        "memory": {"kind": "mlp", "depth": 3},
    }
    words = sweep.assignments(point)
    assert words.index("bias=lp") < words.index("bias.p=2.5")
    config = miras.override(RunConfig(model=miras.preset("yaad")), *words)
    assert config.model.rule.bias == miras.bias.Lp(p=2.5)
    assert config.model.rule.memory == miras.memory.MLP(depth=3)
    assert config.train.warmup is None
    assert config.model.remat is False
    assert sweep.text(miras.memory.MLP(depth=3)) == sweep.text(
        miras.to_dict(miras.memory.MLP(depth=3))
    )


def test_a_part_of_a_part_stands_between_both():
    point = {"memory.inner.depth": 1, "memory.inner": "mlp", "memory": "features"}
    assert sweep.assignments(point) == (
        "memory=features",
        "memory.inner=mlp",
        "memory.inner.depth=1",
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sweep.axis("bias", []), "'bias' has no values"),
        (lambda: sweep.axis("", ["l2"]), "no field"),
        (lambda: sweep.axis("bias", ["l2", " "]), "empty value"),
        (lambda: sweep.axis("bias", ["l2", "lp", "l2"]), "bias=l2 is given twice"),
        (lambda: sweep.axis("chunk", [16, "16"]), "chunk=16 is given twice"),
        (lambda: sweep.product(BIAS, BIAS), "'bias' is set twice"),
        (lambda: sweep.zip_points(BIAS, BIAS), "'bias' is set twice"),
        (lambda: sweep.zip_points(BIAS, CHUNK[:1]), "not of 2, 1"),
        (lambda: sweep.chain(BIAS, CHUNK, BIAS), "bias=l2 is given twice"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
