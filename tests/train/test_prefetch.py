"""Batches read ahead: the position is that of the last one used; errors come in their turn."""

import threading
import time

import numpy as np
import pytest

from miras.parallel import MeshConfig, make_mesh
from miras.train.prefetch import Prefetch


class Numbers:
    """A loader of the batches 0, 1, ...; reading batch `last` raises `error`."""

    def __init__(self, last=100, error=StopIteration):
        self.at, self.last, self.error = 0, last, error
        self.waiting = threading.Semaphore(0)

    def __next__(self):
        if self.at == self.last:
            raise self.error
        self.at += 1
        self.waiting.release()
        return {"inputs": np.full((2, 4), self.at - 1)}

    def get_state(self):
        return {"at": self.at}


def ahead(loader, accumulate=1, updates=100):
    return Prefetch(loader, make_mesh(MeshConfig(fsdp=1, data=1)), 2, accumulate, updates)


def values(batches):
    return [int(x) for x in np.asarray(batches["inputs"])[:, 0, 0]]


def test_it_reads_two_updates_ahead_and_its_position_is_that_of_the_last_one_used():
    loader = Numbers()
    with ahead(loader, accumulate=3) as data:
        for update in range(4):
            assert data.get_state() == {"at": 3 * update}
            for _ in range(6 if update == 0 else 3):
                assert loader.waiting.acquire(timeout=10)
            assert loader.at == 3 * update + 6
            assert values(next(data)) == [3 * update + n for n in range(3)]


@pytest.mark.parametrize("error", [StopIteration, OSError])
def test_the_end_and_errors_of_the_loader_come_after_the_batches_before_them(error):
    with ahead(Numbers(5, error), accumulate=2) as data:
        assert [values(next(data)) for _ in range(2)] == [[0, 1], [2, 3]]
        for _ in range(2):
            with pytest.raises(error):
                next(data)
        assert data.get_state() == {"at": 4}


def test_it_reads_no_more_than_the_updates_of_a_run():
    loader = Numbers()
    with ahead(loader, updates=3) as data:
        assert [values(batches) for batches in data] == [[0], [1], [2]]
    assert loader.at == 3


def test_closing_ends_the_thread_and_the_batches():
    data = ahead(Numbers())
    data.close()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
    with pytest.raises(StopIteration):
        next(data)


def test_the_wait_for_batches_counts_as_idle_once_the_devices_have_nothing_to_do():
    class Slow(Numbers):
        def __next__(self):
            time.sleep(0.3)
            return super().__next__()

    with ahead(Slow()) as data:
        begun = time.monotonic()
        data.get(lambda: time.monotonic() - begun > 0.15)
        assert data.waited.seconds > 0.25
        assert 0 < data.waited.idle <= data.waited.seconds - 0.15
        time.sleep(0.8)
        data.get(lambda: True)
        assert data.waited.seconds < 0.1
