"""Checkpoints: the training state and the data position, saved together by Orbax.

A checkpoint is a folder named by its step. Orbax writes it under a temporary name and renames it
once it is complete. Every load compares the state with the digests in the checkpoint's manifest
(`digest`, `manifest`), to detect later damage.
"""

import contextlib
import functools
import os
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from miras.errors import ConfigError
from miras.runtime import processes
from miras.train.checkpoints import multi_steps
from miras.train.checkpoints.digest import digest
from miras.train.checkpoints.manifest import DamagedError, Manifest
from miras.train.checkpoints.orbax_processes import (
    ignore_preemption,
    in_existing_folder,
    loading_alone,
    saving_apart,
)
from miras.train.checkpoints.silence import drain_callbacks, silence_orbax
from miras.train.checkpoints.times import log_seconds
from miras.train.state import TrainState

T = TypeVar("T")

_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # as Orbax names a checkpoint


class Restored(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        state: the training state.
        step: number of updates.
        damaged: newer checkpoints that cannot be read, with the reason of each.
        seconds: that it took.
    """

    state: TrainState
    step: int
    damaged: dict[int, str]
    seconds: float


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The steps of the checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    steps = [p.name for p in folder.iterdir() if p.is_dir() and _STEP.fullmatch(p.name)]
    return sorted(map(int, steps))


def restore(
    folder: pathlib.Path,
    like: TrainState,
    data: Any = None,
    step: int | None = None,
    fetch: Callable[[int], None] | None = None,
) -> Restored | None:
    """Restore the newest checkpoint that can be read; None if there are no checkpoints.

    Args:
        folder: of the checkpoints; nothing is written to it.
        like: the abstract state, see `state.abstract`.
        data: iterator whose position is set to the saved one; None ignores the position.
        step: of the checkpoint; the newest by default.
        fetch: makes a checkpoint be in the folder, and raises DamagedError if it is incomplete.

    Raises:
        ConfigError: no checkpoint can be read, there is none of `step`, or the position was saved
            with other data.
    """
    start = time.monotonic()
    damaged: dict[int, str] = {}
    steps = processes.decide(lambda: saved_steps(folder))
    if step is not None and step not in steps:
        existing = ", ".join(map(str, steps)) or "none"
        raise ConfigError(f"{folder} has no checkpoint of step {step}: the steps are {existing}.")
    for number in reversed(steps) if step is None else [step]:
        with silence_orbax():
            path = str(folder.absolute() / str(number))
            found = _read(path, like, data, functools.partial(fetch, number) if fetch else None)
            if isinstance(found, str):
                drain_callbacks()
        if not isinstance(found, str):
            return Restored(found, number, damaged, time.monotonic() - start)
        damaged[number] = found
    if damaged:
        raise ConfigError(
            f"none of the checkpoints in {folder} can be read (steps {_listed(damaged)}; "
            f"{next(iter(damaged.values()))}): give another run folder to start again."
        )
    return None


def _read(
    path: str, like: TrainState, data: Any, fetch: Callable[[], None] | None
) -> TrainState | str:
    """The state of a checkpoint, or the reason why it cannot be read; the same in all processes."""
    found = _try(lambda: _load(path, like, data, fetch))
    reasons = processes.gather(found if isinstance(found, str) else "")
    for number, reason in enumerate(reasons):
        if reason:
            return reason if number == 0 else f"process {number}: {reason}"
    assert not isinstance(found, str)
    state, manifest = found
    damage = _try(lambda: _check(state, manifest))  # a digest needs the parts of all processes
    return multi_steps.current_form(state) if damage is None else damage


def _load(
    path: str, like: TrainState, data: Any, fetch: Callable[[], None] | None
) -> tuple[TrainState, Manifest]:
    if fetch is not None:
        fetch()
    manifest = Manifest()
    # By default Orbax waits for all processes after it has read, and so for one that cannot read.
    with loading_alone():
        # One item at a time: if one of several fails, Orbax never awaits the others.
        ocp.load_checkpointables(path, {"data": manifest})
        saved = multi_steps.saved_form(path, like)
        state = ocp.load_checkpointables(path, {"state": saved})["state"]
    for read, expected in zip(jax.tree.leaves(state), jax.tree.leaves(saved), strict=True):
        if (read.shape, read.dtype) != (expected.shape, expected.dtype):
            raise DamagedError(f"an array is {read.dtype}{read.shape}")
    if data is not None:
        data.set_state(manifest.position)
    return state, manifest


def _try(read: Callable[[], T]) -> T | str:
    """The result, or why there is none.

    Raises:
        ConfigError: the checkpoint is of other data.
    """
    try:
        return read()
    except Exception as error:  # damage surfaces as nearly any exception
        if (lost := processes.lost_process(error)) is not None:
            raise lost from error
        cause = _root_cause(error)
        if isinstance(cause, ConfigError):
            raise cause from None
        return _first_line(cause)


def _check(state: TrainState, manifest: Manifest) -> None:
    """Raise DamagedError unless the state is the saved one, bit for bit."""
    if manifest.leaves is None:
        return
    found = digest(state)
    for name in found.keys() | manifest.leaves.keys():
        if found.get(name) != manifest.leaves.get(name):
            raise DamagedError(f"{name} differs from its digest")


def rename_damaged(folder: pathlib.Path, damaged: dict[int, str]) -> str:
    """Rename damaged checkpoints, so that their steps can be saved again.

    Returns:
        A clause that says so, for a warning.
    """
    for step in damaged:
        target = folder / f"{step}.damaged"
        number = 1
        while target.exists():
            number += 1
            target = folder / f"{step}.damaged-{number}"
        (folder / str(step)).rename(target)
    reason = next(iter(damaged.values()))
    return f"checkpoint {_listed(damaged)} is damaged and was renamed ({reason})"


class Checkpoints:
    """Saves checkpoints in the background and keeps the newest ones.

    Args:
        folder: of the checkpoints; created if it does not exist.
        keep: how many to keep. An older one is deleted only after a newer one is complete.
        check_writer: called before each save; raises ConfigError if this process must not write.
        shared: whether all processes of the run see the files in `folder`. If not, each writes the
            shards of its devices to its own, and `check_writer` is called in all of them alike. An
            error in one of them is raised in all.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int,
        check_writer: Callable[[], None] = lambda: None,
        shared: bool = True,
    ):
        self.folder, self._check_writer, self._shared = folder, check_writer, shared
        policies: Any = ocp.training
        with contextlib.ExitStack() as stack:
            stack.enter_context(silence_orbax())
            if not shared:
                folder.mkdir(parents=True, exist_ok=True)
            with contextlib.nullcontext() if shared else in_existing_folder():
                self._orbax = ocp.training.Checkpointer(
                    str(folder.absolute()),
                    context=None if shared else saving_apart(),
                    save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
                    preservation_policy=policies.preservation_policies.LatestN(keep),
                    cleanup_tmp_directories=True,
                )
            ignore_preemption(self._orbax)
            self._quiet = stack.pop_all()
        self._last = time.monotonic()
        self._pending: Any = None  # the save in progress

    def save(self, step: int, state: TrainState, data: Any) -> None:
        """Copy the state and the data position, and write them in the background.

        Args:
            step: updates done.
            state: the training state.
            data: iterator with `get_state`, whose position is saved; None saves no position.

        Raises:
            ConfigError: this checkpoint or the previous one cannot be written.
        """
        self._agree(self._finish)
        self._check_writer()
        with self._failing():
            jax.block_until_ready(state)
            start = time.monotonic()
            manifest = Manifest(None if data is None else data.get_state(), digest(state))
        self._agree(lambda: self._start(step, {"state": state, "data": manifest}, start))

    def _start(self, step: int, items: dict[str, Any], start: float) -> None:
        with self._failing():
            self._pending = self._orbax.save_checkpointables_async(step, items, force=True)
            self._last = time.monotonic()
            log_seconds(self.folder, "save", step, self._last - start)

    def age(self) -> float:
        """Seconds since the last save, or since construction."""
        return time.monotonic() - self._last

    def wait(self) -> None:
        """Wait until the last save is written.

        Raises:
            ConfigError: it cannot be written.
        """
        self._agree(self._finish)
        with self._failing():
            self._orbax.wait()

    def close(self) -> None:
        """Wait for the last save, unless a process was lost, and stop the threads of Orbax.

        Raises:
            ConfigError: the last save cannot be written.
        """
        with self._quiet:
            if processes.is_lost():
                return
            with self._failing():
                try:
                    self._finish()
                finally:
                    self._orbax.close()

    def _agree(self, act: Callable[[], None]) -> None:
        """Act, and raise the error of any process in all of them if Orbax lets none wait."""
        if self._shared:
            act()
        else:
            processes.together(act)

    def _finish(self) -> None:
        """Wait for the save in progress, which also releases its thread and file descriptors."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._failing():
                pending.result()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> Exception:
        drain_callbacks()
        if (lost := processes.lost_process(error)) is not None:
            return lost
        return ConfigError(
            f"could not save a checkpoint in {self.folder} ({_first_line(error)}); "
            f"{last_good(self.folder)}: free space or make the folder writable, and repeat the "
            "command to resume."
        )


def last_good(folder: pathlib.Path) -> str:
    """The checkpoint from which a run would resume, as a clause."""
    steps = saved_steps(folder)
    return (
        f"the last good checkpoint is step {steps[-1]}" if steps else "no checkpoint is saved yet"
    )


def _listed(steps: dict[int, str]) -> str:
    return ", ".join(str(step) for step in steps)


def _root_cause(error: BaseException) -> BaseException:
    """The root cause of an exception; Orbax wraps errors several times, also one in itself."""
    chain = [error]
    while (cause := chain[-1].__cause__) and all(cause is not before for before in chain):
        chain.append(cause)
    return chain[-1]


def _first_line(error: BaseException) -> str:
    """The root cause in one line of at most 200 characters."""
    error = _root_cause(error)
    # Messages of tensorstore are kilobytes long and end with the reason of the operating system.
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines[0] else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
