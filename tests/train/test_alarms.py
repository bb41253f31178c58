"""Warnings about memories: which layer, when, and what to lower."""

import miras
from miras.config import override
from miras.train.alarms import Alarms

YAAD = override(miras.preset("yaad"), "layers=3")


def health(norms, ratios):
    return {"memory_norm": norms, "update_ratio": ratios}


def check(alarms, *measured):
    return list(alarms.check(100, health(*measured)))


def test_a_memory_within_its_bounds_is_silent():
    alarms = Alarms(YAAD)
    assert check(alarms, [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]) == []
    assert check(alarms, [10.0, 20.0, 5.0], [0.5, 1.9, 2.0]) == []


def test_the_warning_names_the_layer_and_the_rate():
    alarms = Alarms(YAAD)
    check(alarms, [1.0, 2.0, 3.0], [0.1, 0.1, 0.1])
    (ratio,) = check(alarms, [1.0, 2.0, 3.0], [0.1, 2.5, 0.1])
    assert ratio.startswith(
        "warning: step 100, the memory of layer 1: the tokens of a row write 2.5"
    )
    assert "algorithm.lr below 0.01 and algorithm.max_lr below 0.5" in ratio
    (norm,) = check(alarms, [1.0, 2.0, 31.0], [0.1, 0.1, 0.1])
    assert "layer 2: its norm is 31, 10.3 times that at first" in norm


def test_an_alarm_warns_again_only_when_it_has_doubled():
    alarms = Alarms(YAAD)
    told = [len(check(alarms, [1.0] * 3, [x, 0.0, 0.0])) for x in (2.1, 3.0, 4.1, 5.0, 8.5)]
    assert told == [1, 0, 0, 1, 0]


def test_a_resumed_run_compares_with_its_first_measurement():
    first = {"step": 5, "kind": "health", **health([1.0, 1.0, 1.0], [0.1] * 3)}
    alarms = Alarms(YAAD, [{"step": 4, "kind": "train"}, first])
    assert len(check(alarms, [1.0, 1.0, 11.0], [0.1] * 3)) == 1


def test_only_layers_with_a_memory_are_measured():
    model = override(YAAD, "layers=4", "pattern=M A")
    alarms = Alarms(model)
    (told,) = check(alarms, [1.0, 1.0], [0.0, 3.0])
    assert "layer 2" in told
