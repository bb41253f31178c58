"""How a run ended, as it lies on disk: a process of its own writes it, the grid's reads it."""

import dataclasses
import json
import pathlib
from typing import Any, Literal

OUTCOME = "outcome.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How one run ended.

    Attributes:
        config_hash: of the run's config.
        status: "done"; "diverged" where a step was not finite, which would come again; "failed" for
            all else, which the next call tries again.
        reason: why it is not done.
        bits_per_byte: on held-out text after the last step, or of the answers to a task; None
            unless done.
        accuracy: share of the targets that are right, of a task; None of text, and unless done.
        steps: updates that the run was to take.
        seconds: of the process that ended it, compilation included.
        resumed_from: the step that process went on from; None where it took all steps.
        parameters: trained numbers; None unless done.
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

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def read_outcome(folder: pathlib.Path, config_hash: str) -> Outcome | None:
    """The outcome in a run's folder; None where there is none of this config."""
    try:
        data: Any = json.loads((folder / OUTCOME).read_text())
        outcome = Outcome(**data)
    except (OSError, ValueError, TypeError):
        return None
    return outcome if outcome.config_hash == config_hash else None
