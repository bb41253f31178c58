"""A run's measurements for experiment trackers: the sinks `wandb` and `trackio`.

The project is $WANDB_PROJECT or $TRACKIO_PROJECT, else "miras"; the rest is set as the trackers
document, for example with $WANDB_MODE=offline.
"""

import importlib
import os
import secrets
from collections.abc import Mapping
from typing import Any

from miras.runtime.files import write_whole
from miras.train.loggers.base import Opening, scalars


class WandB:
    """Weights & Biases; a run that goes on is the same one there, by the id in `wandb_id`."""

    def __init__(self, run: Opening):
        wandb: Any = importlib.import_module("wandb")
        kept = run.folder / "wandb_id"
        if not kept.is_file():
            write_whole(kept, secrets.token_hex(8) + "\n")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "miras"),
            name=run.folder.name,
            id=kept.read_text().strip(),
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
        )
        self._run.define_metric("*", step_metric="step")  # steps may be logged again, after a kill

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """As `Sink.write`."""
        self._run.log({"step": step} | scalars(kind, values))

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()


class Trackio:
    """Trackio, by the name of the run's folder."""

    def __init__(self, run: Opening):
        trackio: Any = importlib.import_module("trackio")
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "miras"),
            name=run.folder.name,
            config=dict(run.config),
            resume="allow",
        )

    def write(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """As `Sink.write`."""
        self._run.log(scalars(kind, values), step=step)

    def close(self) -> None:
        """Wait until all is sent."""
        self._run.finish()
