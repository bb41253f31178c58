"""Turns: two contenders in processes of their own, measured alternately, never at once.

Both are held to the same cores and threads. Each measurement is of a call after the first; memory
is what the process's resident set grew by at its peak during that call, from what it held with
inputs, parameters and compiled code before it.
"""

import ctypes
import dataclasses
import multiprocessing
import os
import statistics
import time
from pathlib import Path

from benchmarks.contenders import CONTENDERS, Call, Shape

PAUSE = 0.05  # seconds in which the threads of the one asked before stop to spin
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one call: medians of its time and of its threads' time, in s; peak memory in bytes."""

    time: float
    cpu: float
    memory: int


class Player:
    """A contender in a process of its own."""

    def __init__(self, name: str, shape: Shape, backward: bool):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        args = (theirs, name, shape, backward)
        self.process = context.Process(target=_serve, args=args, daemon=True)
        self.process.start()
        theirs.close()
        self.name = name

    def ask(self, what: str) -> tuple[float, ...]:
        """Send a request, wait for its answer."""
        time.sleep(PAUSE)
        try:
            self.pipe.send(what)
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            raise SystemExit(
                f"The process of {self.name!r} ended: see its message above."
            ) from None

    def close(self) -> None:
        """End the process."""
        self.pipe.close()
        self.process.join()


def alternate(names: tuple[str, ...], shape: Shape, backward: bool, repeats: int) -> list[Cost]:
    """The cost of each contender, asked in turn, round by round."""
    players = [Player(name, shape, backward) for name in names]
    for player in players:
        player.ask("ready")
    memory = [int(player.ask("memory")[0]) for player in players]
    rounds = [[player.ask("time") for player in players] for _ in range(repeats)]
    for player in players:
        player.close()
    costs = []
    for measured, peak in zip(zip(*rounds), memory):
        wall, cpu = (statistics.median(column) for column in zip(*measured))
        costs.append(Cost(wall, cpu, peak))
    return costs


def hold_to(threads: int) -> None:
    """Let this process, and those that it starts, run on that many cores with as many threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(threads)}


def _serve(pipe, name: str, shape: Shape, backward: bool) -> None:
    call = CONTENDERS[name](shape, backward)
    call()
    answers = {"ready": lambda _: (), "memory": _peak_growth, "time": _time}
    while True:
        try:
            what = pipe.recv()
        except (EOFError, ConnectionError):
            return
        pipe.send(answers[what](call))


def _time(call: Call) -> tuple[float, float]:
    start, worked = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - worked


def _peak_growth(call: Call) -> tuple[int]:
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed counts again
    CLEAR.write_text("5")  # the peak starts from now
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before,)


def _resident(field: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024
