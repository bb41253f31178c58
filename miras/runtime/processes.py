"""The processes of a run: how they find each other, agree, and let one of them decide.

A run on several hosts is one program in several processes (JAX's multi-controller runtime). All of
them must start the same computations in the same order, since a collective waits for every process.
So a decision that depends on the disk or on a clock is made in process 0 alone, with `decide`, and
a step that may fail in one process is run with `together`, which raises its error in all of them.
`miras.runtime.cluster` connects the processes. In a run of one process, nothing here does anything.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from miras.errors import ConfigError

T = TypeVar("T")

# What Gloo, NCCL and the coordination service say of a process that does not answer.
_COLLECTIVE = re.compile(
    "gloo|nccl|barrier|coordination|heartbeat|unavailable|deadline_exceeded|connection", re.I
)
_PUBLISHED = 600.0  # seconds; process 0 publishes before the others read
_lost = False


class ProcessLostError(RuntimeError):
    """A collective failed, since another process of the run has ended or cannot be reached."""


def count() -> int:
    """The number of processes of the run; 1 unless `jax.distributed` is initialised."""
    return _jax().process_count() if _connected() else 1


def index() -> int:
    """The number of this process, in [0, `count()`)."""
    return _jax().process_index() if _connected() else 0


def first() -> bool:
    """Whether this is process 0, which alone writes the files of a run and prints."""
    return index() == 0


def gather(text: str) -> list[str]:
    """A text of each process, by process. All processes must call it.

    Raises:
        ProcessLostError: another process has ended.
    """
    if count() == 1:
        return [text]
    import numpy as np

    content = np.frombuffer(text.encode(), np.uint8)
    lengths = _allgather(np.array(content.size, np.int32))
    size = 256  # a power of two, so that few programs are compiled
    while size < lengths.max():
        size *= 2
    rows = _allgather(np.pad(content, (0, size - content.size)))
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def decide(make: Callable[[], T]) -> T:
    """What `make` returns in process 0, where alone it is called. All processes must call this.

    Args:
        make: returns a value that JSON represents.

    Raises:
        ConfigError: `make` raised it, or an OSError, in process 0; it is raised in all processes.
        ProcessLostError: another process has ended.
    """
    if count() == 1:
        return make()
    return json.loads(gather(_outcome(make) if first() else "")[0], object_hook=_raise_error)


def together(make: Callable[[], T]) -> T:
    """What `make` returns in this process, once it has succeeded in all of them.

    Raises:
        ConfigError: `make` raised it, or an OSError, in some process; it is raised in all, and
            names the first such process.
        ProcessLostError: another process has ended.
    """
    if count() == 1:
        return make()
    value: list[T] = []
    outcomes = gather(_outcome(lambda: value.append(make())))
    for number, outcome in enumerate(outcomes):
        if (error := _error_of(outcome)) is not None:
            same = len({_error_of(other) for other in outcomes}) == 1
            raise ConfigError(error if same else f"process {number}: {error}")
    return value[0]


def check_equal(found: Mapping[str, str], advice: str) -> None:
    """Check that all processes have the same values.

    Args:
        found: values by name.
        advice: ends the message.

    Raises:
        ConfigError: some process differs from process 0; it names both values.
    """
    mappings = [json.loads(text) for text in gather(json.dumps(dict(found)))]
    for number, other in enumerate(mappings):
        for name, value in mappings[0].items():
            if other[name] != value:
                raise ConfigError(
                    f"the processes of this run differ in {name}: {value} in process 0, "
                    f"{other[name]} in process {number}: {advice}"
                )


class Board:
    """Short texts that process 0 publishes, and all read without a collective.

    They are in the key-value store of the coordination service. All processes must create their
    boards in the same order, and read the texts in the order in which they are published.
    """

    _count = 0
    _KEPT = 8  # more than the texts by which a process can lag

    def __init__(self) -> None:
        Board._count += 1
        self._name = f"miras/board/{Board._count}"
        self._published: list[int] = []

    def publish(self, key: int, text: str) -> None:
        """Publish a text in process 0; texts published long before are deleted.

        Raises:
            jax.errors.JaxRuntimeError: the coordination service does not answer.
        """
        client = _client()
        client.key_value_set(f"{self._name}/{key}", text + ".")  # no value is empty
        self._published.append(key)
        while len(self._published) > self._KEPT:
            client.key_value_delete(f"{self._name}/{self._published.pop(0)}")

    def read(self, key: int) -> str:
        """The text of a key, once it is published.

        Raises:
            jax.errors.JaxRuntimeError: process 0 has ended, or hangs.
        """
        limit = int(1000 * _PUBLISHED)
        return _client().blocking_key_value_get(f"{self._name}/{key}", limit)[:-1]


_ERROR = "miras error"


def _outcome(make: Callable[[], Any]) -> str:
    """The value or the error of a call, as JSON."""
    try:
        return json.dumps(make())
    except (ConfigError, OSError) as error:
        return json.dumps({_ERROR: str(error)})


def _error_of(outcome: str) -> str | None:
    found = json.loads(outcome)
    return found.get(_ERROR) if isinstance(found, dict) else None


def _raise_error(found: dict[str, Any]) -> dict[str, Any]:
    if _ERROR in found:
        raise ConfigError(found[_ERROR])
    return found


def _allgather(array: Any) -> Any:
    """The arrays of all processes, with a leading axis for the process."""
    from jax.experimental import multihost_utils

    with collective():
        return multihost_utils.process_allgather(array)


class collective:  # noqa: N801  # used as a function
    """A context in which the failure of a collective is a `ProcessLostError`.

    Over Gloo, the collectives of all other processes fail at once when a process ends. On a TPU
    they wait, until the coordination service reports that the process sends no heartbeats.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and (lost := lost_process(error)) is not None:
            raise lost from error


def lost_process(error: BaseException) -> ProcessLostError | None:
    """The error to raise if an error, or one that caused it, is that of a collective; or None."""
    global _lost
    if count() == 1:
        return None
    failed = _jax().errors.JaxRuntimeError
    own = (e for e in _chain(error) if isinstance(e, failed) and _COLLECTIVE.search(str(e)))
    if (found := next(own, None)) is None:
        return None
    _lost = True
    line = (str(found).strip().splitlines() or [""])[0][:200]
    return ProcessLostError(
        f"process {index()} of {count()}: another process of the run has ended, or hangs ({line}): "
        "repeat the command in every process to resume from the last checkpoint."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those before it, each once: threads that raise one error again make a cycle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_lost() -> bool:
    """Whether `lost_process` has found an error of a collective, so that waiting is in vain."""
    return _lost


def _connected() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _client() -> Any:
    """The client of the coordination service, for which jax has no public name."""
    from jax._src.distributed import global_state

    return global_state.client


def _jax() -> Any:
    return sys.modules["jax"]
