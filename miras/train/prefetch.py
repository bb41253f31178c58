"""Batches read ahead: a thread puts them on the devices while the steps before them run."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from miras.parallel.batches import Layout, to_devices
from miras.train.step import Batch

_LOOK = 0.005  # seconds between looks at the devices, while the next batches are awaited


class Waited(NamedTuple):
    """How long the next batches took.

    Attributes:
        seconds: for which `next` waited for them.
        idle: of these, the seconds in which the devices had nothing to do.
    """

    seconds: float
    idle: float


class _Read(NamedTuple):
    """The batches of an update, and the position of the loader after them."""

    batches: Batch
    position: dict[str, Any]


class Prefetch:
    """The batches of one update after the other, on the devices; an iterator, a context manager.

    A thread reads the loader, which nothing else may use before `close`. An error of the loader,
    or its end, is raised by the `next` that asks for the batches that it could not read, and by
    those after it.

    Args:
        loader: of `miras.data.make_loader`, at the position of the first update.
        mesh: the devices, see `miras.parallel.make_mesh`.
        batch: rows of a batch, over all processes.
        accumulate: batches of an update.
        updates: how many to read at most.
        depth: how many updates are read before they are asked for, >= 1.
        layout: of a row, see `miras.parallel.batches.to_devices`.

    Attributes:
        waited: of the last `get`.
    """

    def __init__(
        self,
        loader: Any,
        mesh: Mesh,
        batch: int,
        accumulate: int,
        updates: int,
        depth: int = 2,
        layout: Layout | None = None,
    ):
        self._loader, self._mesh, self._batch, self._layout = loader, mesh, batch, layout
        self._accumulate, self._updates = accumulate, updates
        self._position = loader.get_state()
        self._end: BaseException | None = None
        self.waited = Waited(0.0, 0.0)
        self._read: queue.SimpleQueue[_Read | BaseException] = queue.SimpleQueue()
        self._free = threading.Semaphore(depth)
        self._closed = False
        self._thread = threading.Thread(target=self._read_all, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> "Prefetch":
        return self

    def __next__(self) -> Batch:
        """The batches of the next update, [accumulate, batch, sequence]."""
        return self.get(lambda: True)

    def get(self, idle: Callable[[], bool]) -> Batch:
        """As `next`, with `waited`.

        Args:
            idle: whether the devices have nothing to do; it must not wait for them.
        """
        if self._end is not None:
            raise self._end
        found = self._await(idle)
        if isinstance(found, BaseException):
            self._end = found
            raise found
        self._free.release()
        self._position = found.position
        return found.batches

    def _await(self, idle: Callable[[], bool]) -> _Read | BaseException:
        """What the thread has read next."""
        start, found, free = time.monotonic(), None, None
        while found is None:
            if free is None and idle():
                free = time.monotonic()
            try:
                found = self._read.get(timeout=None if free is not None else _LOOK)
            except queue.Empty:
                continue
        now = time.monotonic()
        self.waited = Waited(now - start, 0.0 if free is None else now - free)
        return found

    def get_state(self) -> dict[str, Any]:
        """The position of the loader after the last update that `next` has returned."""
        return self._position

    def close(self) -> None:
        """End the thread, after the batch that it is reading."""
        self._closed = True
        self._end = self._end or StopIteration()
        self._free.release()
        self._thread.join()

    def _read_all(self) -> None:
        try:
            for _ in range(self._updates):
                self._free.acquire()
                if self._closed:
                    return
                self._read.put(self._next())
            raise StopIteration
        except BaseException as error:  # it belongs to the thread that asks for the batches
            self._read.put(error)

    def _next(self) -> _Read:
        found = [next(self._loader) for _ in range(self._accumulate)]
        local = {name: np.stack([batch[name] for batch in found]) for name in found[0]}
        batches = to_devices(self._mesh, local, self._batch, self._layout)
        return _Read(batches, self._loader.get_state())
