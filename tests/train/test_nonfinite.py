"""The advice after a step that was not finite: the inner rate or the outer one."""

import pytest

import miras
from miras.train.nonfinite import Place, advice

YAAD = miras.preset("yaad")


@pytest.mark.parametrize(
    ("place", "step", "inner"),
    [
        (Place("the memory of layer 2", memory_of=2), 7, True),
        (Place("the gradient of w1", in_gradient=True), 1, True),
        (Place("the gradient of w1", in_gradient=True), 2, False),
        (Place("the update"), 1, False),
    ],
)
def test_advice_names_the_rate_that_is_to_blame(place, step, inner):
    told = advice(YAAD, place, step)
    if inner:
        assert f"inner rate of layer {place.memory_of or 0}" in told
        assert "algorithm.lr below 0.01 and algorithm.max_lr below 0.5" in told
    else:
        assert "train.learning_rate" in told
        assert "inner" not in told


def test_attention_has_no_inner_rate():
    place = Place("the memory of layer 0", memory_of=0)
    assert "train.learning_rate" in advice(miras.preset("transformer"), place, 1)
