"""What every reading of files says of itself: how many were read, how many left out and why.

The line goes to the log, as a warning where something was left out. The command line prints it, and
a run records it in its folder.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import dataclasses
import json
import logging
from collections.abc import Iterable, Iterator

_LOG = logging.getLogger(__name__)
_COLLECTED: contextvars.ContextVar[list[Reading] | None] = contextvars.ContextVar(
    "readings", default=None
)
_ADJECTIVES = ("hidden", "empty", "binary", "unreadable")


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a source gave.

    Attributes:
        source: as the user named it, printable.
        read: how many files were read.
        left_out: how many were not, by reason.
        names: the first few of them, by reason.
        unit: what is counted.
        digest: names the content, where it was computed.
    """

    source: str
    read: int
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    unit: str = "file"
    digest: str = ""

    @property
    def summary(self) -> str:
        """In words: "texts: 40 files read, 3 left out (2 hidden, 1 zip archive)"."""
        units = self.unit if self.read == 1 else f"{self.unit}s"
        return f"{self.source}: {self.read:,} {units} read, {left_out(self.left_out)}"


def count(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    counted = collections.Counter(reasons)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def left_out(reasons: dict[str, int]) -> str:
    """In words: "3 left out (2 hidden, 1 zip archive)"."""
    if not reasons:
        return "none left out"
    return (
        f"{sum(reasons.values()):,} left out ({', '.join(map(_counted, *zip(*reasons.items())))})"
    )


def tell(reading: Reading) -> None:
    """Log a reading, and add it to those that `collect` gathers."""
    _LOG.log(logging.WARNING if reading.left_out else logging.INFO, "%s", reading.summary)
    found = _COLLECTED.get()
    if found is not None and reading not in found:
        found.append(reading)


@contextlib.contextmanager
def collect() -> Iterator[list[Reading]]:
    """Gathers the readings that are told inside of it, each once."""
    found: list[Reading] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def to_json(readings: Iterable[Reading]) -> str:
    """The readings as JSON text, for a run's folder."""
    found = [dataclasses.asdict(reading) for reading in readings]
    return json.dumps({"readings": found}, indent=2) + "\n"


def printable(text: str) -> str:
    """A path's text, with escapes in place of bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _counted(reason: str, number: int) -> str:
    if number > 1 and reason not in _ADJECTIVES and not reason.startswith("without"):
        noun, of, rest = reason.partition(" of ")
        reason = f"{noun}s{of}{rest}"
    return f"{number:,} {reason}"
