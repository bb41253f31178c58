"""A measured run beside its prediction."""

import json
import os
import statistics
from typing import NamedTuple

from miras.config import require
from miras.errors import ConfigError
from miras.train.config import RunConfig
from miras.train.runs.run_folder import RunFolder


class Measured(NamedTuple):
    """What a run logged.

    Attributes:
        config: of the run.
        tokens_per_second: the median of its later intervals.
        intervals: their number.
    """

    config: RunConfig
    tokens_per_second: float
    intervals: int

    def step(self, tokens: int) -> float:
        """Seconds of a step of so many tokens."""
        return tokens / self.tokens_per_second


def measured(run: str | os.PathLike[str]) -> Measured:
    """The config and the speed of a run; the first half of its log, with warm-up, is left out.

    Args:
        run: folder of the run.

    Raises:
        ConfigError: the folder holds no run, or one that has logged no interval.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    speeds = []
    if folder.metrics.exists():
        for line in folder.metrics.read_text().splitlines():
            try:
                speeds.append(float(json.loads(line)["tokens_per_second"]))
            except (ValueError, KeyError, TypeError):
                continue  # a line of an evaluation, or one that was cut
    require(
        len(speeds) > 0,
        f"{folder.shown} has logged no speed: train at least train.log_every steps.",
    )
    later = speeds[len(speeds) // 2 :]
    if not statistics.median(later) > 0:
        raise ConfigError(f"{folder.shown} has logged a speed of 0: train more steps.")
    return Measured(config, statistics.median(later), len(later))
