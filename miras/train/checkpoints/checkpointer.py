"""Checkpoints: the training state and the place in the data, saved together by Orbax.

A checkpoint is a folder named by its step. Orbax writes it beside that name and renames it when it
is whole, so that what has the name was whole once. Whether it still is, the digests tell that lie
in its seal (`digest`, `seal`): every load checks them.
"""

import contextlib
import os
import pathlib
import re
import time
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from miras.errors import ConfigError
from miras.train.checkpoints.digest import digest
from miras.train.checkpoints.manifest import DamagedError, Seal
from miras.train.checkpoints.silence import quiet, settle
from miras.train.state import TrainState

_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # as the checkpointer writes a step


class Restored(NamedTuple):
    """What was read from disk.

    Attributes:
        state: the training state.
        step: updates that it has seen.
        damaged: newer checkpoints that could not be read, with the reason of each.
    """

    state: TrainState
    step: int
    damaged: dict[int, str]


def saved_steps(folder: pathlib.Path) -> list[int]:
    """The steps that have a checkpoint in a folder, ascending."""
    if not folder.is_dir():
        return []
    steps = [p.name for p in folder.iterdir() if p.is_dir() and _STEP.fullmatch(p.name)]
    return sorted(map(int, steps))


def restore(
    folder: pathlib.Path, like: TrainState, data: Any = None, step: int | None = None
) -> Restored | None:
    """The newest checkpoint that can be read, or None where there is none at all.

    Args:
        folder: where the checkpoints lie; nothing is written to it.
        like: abstract state, see `state.abstract`.
        data: iterator whose position is set to the saved one; None leaves the position unread.
        step: the one to read; None is the newest.

    Raises:
        ConfigError: where there are checkpoints and none can be read, where there is none of
            `step`, or where the position is one in other data.
    """
    damaged: dict[int, str] = {}
    steps = saved_steps(folder)
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps)) or "none"
        raise ConfigError(
            f"{folder} has no checkpoint of step {step}: the steps there are {there}."
        )
    for number in reversed(steps) if step is None else [step]:
        with quiet():
            found = _read(str(folder.absolute() / str(number)), like, data)
            if isinstance(found, str):
                settle()
        if not isinstance(found, str):
            return Restored(found, number, damaged)
        damaged[number] = found
    if damaged:
        raise ConfigError(
            f"none of the checkpoints in {folder} can be read (steps {_listed(damaged)}; "
            f"{next(iter(damaged.values()))}): give another run folder to start anew."
        )
    return None


def _read(path: str, like: TrainState, data: Any) -> TrainState | str:
    """The state in a checkpoint, or the reason why it cannot be read."""
    seal = Seal()
    try:
        # One at a time: where one item of several fails, Orbax never awaits the others.
        ocp.load_checkpointables(path, {"data": seal})
        state = ocp.load_checkpointables(path, {"state": like})["state"]
        _check(state, like, seal)
        if data is not None:
            data.set_state(seal.position)
        return state
    except Exception as error:  # a damaged file may surface as nearly any exception
        cause = _innermost(error)
        if isinstance(cause, ConfigError):
            raise cause from None
        return _first_line(cause)


def _check(state: TrainState, like: TrainState, seal: Seal) -> None:
    """Raise DamagedError unless a state is the one that was saved, bit for bit."""
    for own, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        if (own.shape, own.dtype) != (wanted.shape, wanted.dtype):
            raise DamagedError(f"an array is {own.dtype}{own.shape}")
    if seal.leaves is None:
        return
    found = digest(state)
    for name in found.keys() | seal.leaves.keys():
        if found.get(name) != seal.leaves.get(name):
            raise DamagedError(f"{name} is not what was written")


def set_aside(folder: pathlib.Path, damaged: dict[int, str]) -> str:
    """Rename damaged checkpoints, so that their steps can be saved again; says so in a sentence."""
    for step in damaged:
        target = folder / f"{step}.damaged"
        number = 1
        while target.exists():
            number += 1
            target = folder / f"{step}.damaged-{number}"
        (folder / str(step)).rename(target)
    reason = next(iter(damaged.values()))
    return f"checkpoint {_listed(damaged)} is damaged and was set aside ({reason})"


class Checkpoints:
    """Saves checkpoints in the background and keeps the newest.

    Args:
        folder: where they lie; made if need be.
        keep: how many to keep. An older one goes only after a newer one is whole.
    """

    def __init__(self, folder: pathlib.Path, keep: int):
        self.folder = folder
        policies: Any = ocp.training
        with contextlib.ExitStack() as stack:
            stack.enter_context(quiet())
            self._orbax = ocp.training.Checkpointer(
                str(folder.absolute()),
                save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=policies.preservation_policies.LatestN(keep),
                cleanup_tmp_directories=True,
            )
            self._quiet = stack.pop_all()
        self._last = time.monotonic()
        self._pending: Any = None  # what Orbax gave for the save that is under way

    def save(self, step: int, state: TrainState, data: Any) -> None:
        """Copy state and position, and write them while the run goes on.

        Args:
            step: updates done.
            state: the training state.
            data: iterator with `get_state`, whose position is saved; None where there is none.

        Raises:
            ConfigError: where this checkpoint or the one before it could not be written.
        """
        try:
            self._finish()
            seal = Seal(None if data is None else data.get_state(), digest(state))
            items = {"state": state, "data": seal}
            self._pending = self._orbax.save_checkpointables_async(step, items)
            self._last = time.monotonic()
        except Exception as error:
            raise self._failed(error) from error

    def age(self) -> float:
        """Seconds since the last save, or since this was made."""
        return time.monotonic() - self._last

    def wait(self) -> None:
        """Return when all is written.

        Raises:
            ConfigError: where it could not be.
        """
        try:
            self._finish()
            self._orbax.wait()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Wait, and let go of Orbax's threads.

        Raises:
            ConfigError: where a checkpoint could not be written.
        """
        with self._quiet:
            try:
                try:
                    self._finish()
                finally:
                    self._orbax.close()
            except Exception as error:
                raise self._failed(error) from error

    def _finish(self) -> None:
        """Wait for the save that is under way, whose thread and descriptors end only so."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _failed(self, error: Exception) -> ConfigError:
        settle()
        return ConfigError(
            f"could not save a checkpoint in {self.folder} ({_first_line(error)}); "
            f"{last_good(self.folder)}: free space or make the folder writable, and give the same "
            "command to go on."
        )


def last_good(folder: pathlib.Path) -> str:
    """Which checkpoint a run would go on from, as part of a sentence."""
    steps = saved_steps(folder)
    return (
        f"the last good checkpoint is step {steps[-1]}" if steps else "no checkpoint is there yet"
    )


def _listed(steps: dict[int, str]) -> str:
    return ", ".join(str(step) for step in steps)


def _innermost(error: BaseException) -> BaseException:
    """What an exception was raised from in the end; Orbax wraps what went wrong several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    """The innermost cause in one line of at most 200 characters."""
    error = _innermost(error)
    # tensorstore's messages run to kilobytes; the operating system's reason stands at their end.
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines[0] else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
