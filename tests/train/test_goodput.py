"""Where wall time goes: reasons add up to it, and restarts keep what was before them."""

import time

import pytest

from miras.train.goodput import WallTime, carried, share


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_every_moment_has_one_reason(monkeypatch):
    clock = Clock(monkeypatch)
    wall = WallTime()
    clock.now += 5  # start
    with wall.spending("compile"):
        clock.now += 7
    wall.switch("steps")
    clock.now += 20
    wall.move(4, "data")
    with wall.spending("checkpoint"):
        clock.now += 3
    clock.now += 1
    assert wall.seconds() == {"start": 5, "compile": 7, "steps": 17, "data": 4, "checkpoint": 3}
    assert sum(wall.seconds().values()) == clock.now - 100
    assert share(wall.seconds()) == pytest.approx(17 / 36)


def _line(step, when, **seconds):
    return {"step": step, "kind": "train", "time": when, "seconds": seconds}


def test_lost_steps_and_the_time_between_are_carried_over_a_restart():
    """A run is killed at step 20 and resumes from step 15, with 10 s of steps in steps 11 to 20."""
    lines = [
        _line(10, 1000.0, start=2.0, compile=3.0, steps=10.0),
        {"step": 12, "kind": "health"},
        _line(20, 1011.0, start=2.0, compile=3.0, steps=20.0, checkpoint=1.0),
    ]
    found = carried(lines, 15, now=1041.0)
    assert found == {
        "start": 2.0, "compile": 3.0, "steps": 15.0, "checkpoint": 1.0, "lost": 5.0, "stopped": 30.0
    }  # fmt: skip
    whole = 1041.0 - (1011.0 - 26.0)  # the run began 26 s before its last line
    assert sum(found.values()) == whole


def test_a_second_restart_adds_to_the_first():
    lines = [
        _line(5, 1000.0, steps=5.0),
        _line(5, 1010.0, steps=5.0, lost=2.0, stopped=8.0),  # resumed at step 5
        _line(9, 1020.0, start=6.0, steps=9.0, lost=2.0, stopped=8.0),
    ]
    found = carried(lines, 5, now=1025.0)
    assert found == {"start": 6.0, "steps": 5.0, "lost": 6.0, "stopped": 13.0}


@pytest.mark.parametrize("lines", [[], [{"step": 3, "kind": "train", "loss": 1.0}]])
def test_runs_of_earlier_versions_have_nothing_to_carry(lines):
    assert carried(lines, 3, now=1.0) == {}
