"""One process decides alone; what several do is in tests/train/test_processes.py."""

import jax
import pytest

from miras.errors import ConfigError
from miras.runtime import processes


def fails():
    raise ConfigError("no")


def test_one_process_is_the_first_and_decides_itself():
    assert (processes.count(), processes.index(), processes.first()) == (1, 0, True)
    value = object()  # not JSON
    assert processes.decide(lambda: value) is value
    assert processes.together(lambda: value) is value
    assert processes.gather("é") == ["é"]
    processes.check_equal({"the code": "a"}, "do this.")
    for call in (processes.decide, processes.together):
        with pytest.raises(ConfigError, match=r"^no$"):
            call(fails)


@pytest.fixture
def three(monkeypatch):
    """Process 1 of three, in which the others gather the given texts."""

    def start(others):
        monkeypatch.setattr(processes, "count", lambda: 3)
        monkeypatch.setattr(processes, "index", lambda: 1)
        monkeypatch.setattr(processes, "gather", lambda own: [others[0], own, others[1]])

    return start


def test_the_decision_of_process_0_holds_everywhere(three):
    three(['{"a": [1, null]}', ""])
    assert processes.decide(fails) == {"a": [1, None]}
    three(['{"miras error": "the disk is full"}', ""])
    with pytest.raises(ConfigError, match=r"^the disk is full$"):
        processes.decide(fails)


def test_an_error_of_one_process_is_that_of_all(three):
    three(["null", "null"])
    assert processes.together(lambda: "own") == "own"
    with pytest.raises(ConfigError, match=r"^process 1: no$"):
        processes.together(fails)
    three(["null", '{"miras error": "bad"}'])
    with pytest.raises(ConfigError, match=r"^process 2: bad$"):
        processes.together(lambda: "own")
    three(['{"miras error": "no"}'] * 2)
    with pytest.raises(ConfigError, match=r"^no$"):
        processes.together(fails)


def test_processes_that_differ_are_named_with_both_values(three):
    three(['{"the data": "3f"}', '{"the data": "3f"}'])
    processes.check_equal({"the data": "3f"}, "read the same files.")
    with pytest.raises(
        ConfigError, match="differ in the data: 3f in process 0, 77 in process 1: read"
    ):
        processes.check_equal({"the data": "77"}, "read the same files.")


class CyclicError(Exception):
    """An error that was raised again in another thread, so that it caused itself."""

    reads = 0

    @property
    def __cause__(self):
        self.reads += 1
        assert self.reads < 10, "the chain is followed without an end"
        return self


def test_the_error_of_a_collective_is_found_in_its_chain(three, monkeypatch):
    monkeypatch.setattr(processes, "_lost", False)
    assert processes.lost_process(OSError("gloo")) is None  # one process
    three(["", ""])
    assert processes.lost_process(CyclicError("no")) is None
    assert processes.lost_process(jax.errors.JaxRuntimeError("out of memory")) is None
    assert not processes.is_lost()
    error = OSError("file")
    error.__context__ = Exception()
    error.__context__.__cause__ = jax.errors.JaxRuntimeError("Gloo: closed\nmore")
    found = processes.lost_process(error)
    assert isinstance(found, processes.ProcessLostError)
    assert "process 1 of 3: another process of the run has ended, or hangs (Gloo: closed)" in str(
        found
    )
    assert processes.is_lost()
