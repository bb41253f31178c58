"""Reads the profile of a run: which operations take the time of a step, and the memories' share.

An operation's time is its own: a loop does not have the time of the operations in it.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.profiler import ProfileData

from miras.errors import ConfigError
from miras.train.profiling import OPERATIONS

_MEMORY = "jit(_run)"  # of `miras.scan`
_KERNEL = re.compile(r"pallas_call|tpu_custom_call|triton")
_COLLECTIVE = re.compile(
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|ragged-all-to-all)"
)
_MODULE = re.compile(r"jit_step\b")


class Operation(NamedTuple):
    """An operation of the compiled step.

    Attributes:
        name: of the compiler.
        origin: its name stack in the program; "" if it is not known.
        seconds: of its own in a step of one device.
        count: how often a step runs it on a device.
    """

    name: str
    origin: str
    seconds: float
    count: float

    @property
    def of_memory(self) -> bool:
        """Whether it belongs to the scan of a memory, forward or backward."""
        return _MEMORY in self.origin

    @property
    def is_kernel(self) -> bool:
        """Whether it is a kernel of Pallas."""
        return _KERNEL.search(f"{self.name} {self.origin}") is not None

    @property
    def is_collective(self) -> bool:
        """Whether it sends data between devices."""
        return _COLLECTIVE.match(self.name) is not None


class RunProfile(NamedTuple):
    """The profile of a run.

    Attributes:
        first: the first step.
        last: the last step.
        operations: by falling time.
    """

    first: int
    last: int
    operations: list[Operation]

    @property
    def seconds(self) -> float:
        """Seconds of all operations in a step of one device."""
        return sum(operation.seconds for operation in self.operations)

    def share(self, attribute: str) -> float:
        """The share of the operations of which a property holds, in [0, 1]."""
        found = sum(o.seconds for o in self.operations if getattr(o, attribute))
        return found / max(self.seconds, 1e-12)

    @property
    def memory_kernels(self) -> float:
        """The share of the kernels of memories, in [0, 1]."""
        found = sum(o.seconds for o in self.operations if o.of_memory and o.is_kernel)
        return found / max(self.seconds, 1e-12)


def read_profile(run: pathlib.Path) -> RunProfile:
    """The newest profile of a run, of all its hosts.

    Args:
        run: the folder of the run.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    folder = run / "profile"
    try:
        traces = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
    except (OSError, ValueError):  # the path cannot be that of a folder
        traces = []
    if not traces or not (folder / OPERATIONS).is_file():
        raise ConfigError(
            f"{run} has no profile: train it with train.profile=FIRST:LAST, as in profile=100:103."
        )
    try:
        known = json.loads((folder / OPERATIONS).read_text())
        files = [path for path in traces if path.parent == traces[-1].parent]
        return _summed(known, [ProfileData.from_file(str(path)) for path in files])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"the profile in {folder} cannot be read ({error}): profile the run again."
        ) from error


def _summed(known: dict[str, Any], traces: list[Any]) -> RunProfile:
    origins: dict[str, str] = known["operations"]
    found: dict[str, tuple[float, int]] = {}
    devices = 0
    for trace in traces:
        for lines in _devices(trace):
            devices += 1
            for name, seconds in (event for line in lines for event in own_times(line)):
                before = found.get(name, (0.0, 0))
                found[name] = before[0] + seconds, before[1] + 1
    each = max(devices, 1) * (known["last"] - known["first"] + 1)
    operations = [
        Operation(name, origins.get(name, ""), seconds / each, count / each)
        for name, (seconds, count) in found.items()
    ]
    operations.sort(key=lambda operation: -operation.seconds)
    return RunProfile(known["first"], known["last"], operations)


Event = tuple[str, float, float]  # name, start, duration, in nanoseconds


def _devices(trace: Any) -> list[list[list[Event]]]:
    """The operations of each device, by line; a CPU is one device.

    A host without accelerators may have planes of them, which are then empty.
    """
    found: dict[bool, list[list[list[Event]]]] = {True: [], False: []}
    for plane in trace.planes:
        accelerator = plane.name.startswith("/device:")
        if accelerator or plane.name == "/host:CPU":
            lines = [_events(line) for line in plane.lines if _has_operations(line)]
            if any(lines):
                found[accelerator].append(lines)
    return found[True] or found[False]


def _has_operations(line: Any) -> bool:
    """Whether a line has operations: of a TPU one has, of a GPU the streams, of a CPU the rest."""
    return line.name == "XLA Ops" or line.name.startswith(("Stream", "tf_XLA", "tf_xla"))


def _events(line: Any) -> list[Event]:
    found = []
    for event in line.events:
        stats = dict(event.stats)
        name = stats.get("hlo_op") or (event.name if line.name == "XLA Ops" else None)
        module = stats.get("hlo_module")
        if name is None or (module is not None and not _MODULE.match(str(module))):
            continue
        name = str(name).partition(" = ")[0].lstrip("%")
        found.append((name, event.start_ns, event.duration_ns))
    return found


def own_times(events: list[Event]) -> Iterator[tuple[str, float]]:
    """The name and the seconds of each event of a line, without those of events within it."""
    open_events: list[list[Any]] = []  # name, end, own time
    for name, start, duration in sorted(events, key=lambda event: (event[1], -event[2])):
        while open_events and open_events[-1][1] <= start:
            ended = open_events.pop()
            yield ended[0], ended[2] / 1e9
        if open_events:
            open_events[-1][2] -= duration
        open_events.append([name, start + duration, duration])
    for name, _, own in reversed(open_events):
        yield name, own / 1e9
