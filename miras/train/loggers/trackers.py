"""The loggers `wandb` and `trackio`, which send measurements to experiment trackers.

The project is $WANDB_PROJECT or $TRACKIO_PROJECT, by default "miras". The documentation of the
trackers lists further settings, for example $WANDB_MODE=offline.
"""

import importlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

from miras.runtime.files import write_atomically
from miras.train.loggers.base import LoggerContext, scalars


class WandB:
    """Weights & Biases; a resumed run keeps the id in the file `wandb_id`."""

    def __init__(self, run: LoggerContext):
        wandb: Any = importlib.import_module("wandb")
        kept = run.folder / "wandb_id"
        if not kept.is_file():
            write_atomically(kept, secrets.token_hex(8) + "\n")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "miras"),
            name=run.folder.name,
            id=kept.read_text().strip(),
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
        )
        self._run.define_metric("*", step_metric="step")  # a resumed run may log a step twice

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """As `Logger.write`."""
        self._run.log({"step": step} | scalars(kind, values))

    def close(self) -> None:
        """Wait until all measurements are sent."""
        self._run.finish()


class Trackio:
    """Trackio; a run has the name of its folder."""

    def __init__(self, run: LoggerContext):
        trackio: Any = importlib.import_module("trackio")
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "miras"),
            name=run.folder.name,
            config=dict(run.config),
            resume="allow",
        )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """As `Logger.write`."""
        self._run.log(scalars(kind, values), step=step)

    def close(self) -> None:
        """Wait until all measurements are sent."""
        self._run.finish()
