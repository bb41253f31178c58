"""When several processes save by the clock of process 0."""

import pytest

from miras.runtime import processes
from miras.train.due import Timetable


class Board:
    """The key-value store of one run."""

    def __init__(self, texts):
        self.texts = texts

    def publish(self, key, text):
        self.texts[key] = text

    def read(self, key):
        return self.texts[key]  # a KeyError would be a process that waits


@pytest.fixture
def two(monkeypatch, tiny):
    """Makes the timetables of two processes, with clocks of their own."""
    texts = {}
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "Board", lambda: Board(texts))

    def make(age, **train):
        recipe = tiny(**train).train
        return Timetable(recipe, age), Timetable(recipe, lambda: 0.0), texts

    return make


def play(monkeypatch, first, second, steps, begin=lambda step: None, saved=lambda step: None):
    """The steps after which both save."""
    found = []
    for step in range(steps + 1):
        begin(step)
        for timetable, number in ((first, 0), (second, 1)):
            monkeypatch.setattr(processes, "first", lambda number=number: number == 0)
            timetable.announce(step + 1)
        if not step:
            continue  # announced before the loop
        due = first.due(step)
        assert due == second.due(step)
        if due.save:
            saved(step)
            found.append(step)
    return found


def test_both_save_by_the_clock_of_process_0(two, monkeypatch):
    """A step takes 30 s, so the clock asks 4 steps after a save, at a step that logs or so."""
    last, age = [0], [0.0]
    first, second, texts = two(
        lambda: age[0], steps=20, log_every=2, eval_every=5, health_every=20, checkpoint_every=7,
        checkpoint_minutes=2.0,
    )  # fmt: skip
    found = play(
        monkeypatch,
        first,
        second,
        20,
        begin=lambda step: age.__setitem__(0, 30.0 * (step - last[0])),
        saved=lambda step: last.__setitem__(0, step),
    )
    assert found == [5, 7, 12, 14, 20]
    assert [step for step, text in texts.items() if text] == [5, 12, 20]


def test_none_disables_it(two, monkeypatch):
    first, second, texts = two(lambda: 1e9, steps=8, checkpoint_every=8, checkpoint_minutes=None)
    assert play(monkeypatch, first, second, 8) == [8]
    assert texts == {}


def test_a_save_takes_the_place_of_the_one_after_it(two, monkeypatch):
    first, second, _ = two(lambda: 1e9, steps=8, log_every=1, checkpoint_every=4)
    assert play(monkeypatch, first, second, 8) == [2, 4, 6, 8]
