"""How a run ended: the run's process writes a file, the grid's process reads it."""

import dataclasses
import json
import os
from typing import Any, Literal

from etils import epath

from miras.analysis.ablate.measurements import Curve
from miras.runtime import paths

OUTCOME = "outcome.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Attributes:
        config_hash: of the run's config.
        status: "done"; "diverged" after a step that was not finite, which would recur; "failed"
            after any other error, which the next call retries.
        reason: of a status other than "done".
        bits_per_byte: on held-out text after the last step, or of the answers to a task; None
            unless done.
        accuracy: share of a task's targets that are right; None for text, and unless done.
        steps: number of updates in the config.
        seconds: wall time of the last process, including compilation.
        resumed_from: the step that process resumed from; None if it took all steps.
        parameters: number of trained parameters; None unless done.
        tokens_per_second: see `measurements.Measurements`.
        utilization: as above.
        curve: as above, also of a run that diverged.
        scores: the numbers of the last evaluation by name; empty unless done.
    """

    config_hash: str
    status: Literal["done", "diverged", "failed"]
    reason: str | None = None
    bits_per_byte: float | None = None
    accuracy: float | None = None
    steps: int = 0
    seconds: float = 0.0
    resumed_from: int | None = None
    parameters: int | None = None
    tokens_per_second: float | None = None
    utilization: float | None = None
    curve: Curve = ()
    scores: dict[str, float] = dataclasses.field(default_factory=dict)

    def score(self, field: str) -> float | None:
        """A number of the last evaluation; None if there is none, or unless done."""
        return self.scores.get(field, getattr(self, field, None))

    def to_json(self) -> str:
        """The outcome as one line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def read_outcome(folder: str | os.PathLike[str], config_hash: str) -> Outcome | None:
    """The outcome in a run's folder; None if there is none of this config.

    Raises:
        ConfigError: the object store of the folder cannot be reached.
    """
    try:
        content = paths.read(epath.Path(folder) / OUTCOME)
    except OSError:
        return None
    return parse_outcome(content, config_hash)


def parse_outcome(content: bytes, config_hash: str) -> Outcome | None:
    """The outcome in the content of a file; None if it is damaged or of another config."""
    try:
        data: Any = json.loads(content)
        outcome = Outcome(**data | {"curve": tuple(map(tuple, data.get("curve", ())))})
    except (ValueError, TypeError, AttributeError):
        return None
    return outcome if outcome.config_hash == config_hash else None
