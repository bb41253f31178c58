"""The logger `tensorboard`, which needs the package tensorboardX."""

import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.summary import scalar

from miras.train.loggers.base import LoggerContext, scalars


class TensorBoard:
    """Writes scalars to the folder `tensorboard/` of a run.

    It writes synchronously: the thread of tensorboardX's `SummaryWriter` would wait for ever once
    the disk is full.
    """

    def __init__(self, run: LoggerContext):
        folder: pathlib.Path = run.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        # The suffix prevents a run that resumes within a second from opening the same file.
        self._events = EventsWriter(str(folder / "events"), f".{run.after}.{os.getpid()}")
        start = SessionLog(status=SessionLog.START)
        event = Event(wall_time=time.time(), step=run.after + 1, session_log=start)
        self._events.write_event(event)

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """As `Logger.write`."""
        for name, value in scalars(kind, values).items():
            event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
            self._events.write_event(event)
        self._events.flush()

    def close(self) -> None:
        """Close the file."""
        self._events.close()
