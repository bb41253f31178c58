"""Reports of how many files of a source were read, and how many were left out and why.

A report is logged, as a warning if files were left out. The command line prints it, and a run saves
it in its folder.
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
_COLLECTED: contextvars.ContextVar[list[ReadReport] | None] = contextvars.ContextVar(
    "readings", default=None
)
_ADJECTIVES = ("hidden", "empty", "binary", "unreadable")


@dataclasses.dataclass(frozen=True)
class ReadReport:
    """How many files of a source were read.

    Attributes:
        source: as named by the user, printable.
        read: number of files that were read.
        left_out: numbers of files that were left out, by reason.
        names: the first of these files, by reason.
        unit: what is counted, in the singular.
        digest: of the content; may be empty.
    """

    source: str
    read: int
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    names: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    unit: str = "file"
    digest: str = ""

    @property
    def summary(self) -> str:
        """One line: "texts: 40 files read, 3 left out (2 hidden, 1 zip archive)"."""
        units = self.unit if self.read == 1 else f"{self.unit}s"
        return f"{self.source}: {self.read:,} {units} read, {left_out(self.left_out)}"


def count(reasons: Iterable[str]) -> dict[str, int]:
    """The count of each reason, the most frequent first."""
    counted = collections.Counter(reasons)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def left_out(reasons: dict[str, int]) -> str:
    """A phrase: "3 left out (2 hidden, 1 zip archive)"."""
    if not reasons:
        return "none left out"
    return (
        f"{sum(reasons.values()):,} left out ({', '.join(map(_counted, *zip(*reasons.items())))})"
    )


def report(reading: ReadReport) -> None:
    """Log a report, and add it to those that `collect_reports` collects."""
    _LOG.log(logging.WARNING if reading.left_out else logging.INFO, "%s", reading.summary)
    found = _COLLECTED.get()
    if found is not None and reading not in found:
        found.append(reading)


@contextlib.contextmanager
def collect_reports() -> Iterator[list[ReadReport]]:
    """Collects the reports within the block, without duplicates."""
    found: list[ReadReport] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


def to_json(readings: Iterable[ReadReport]) -> str:
    """The reports as JSON text, for the folder of a run."""
    found = [dataclasses.asdict(reading) for reading in readings]
    return json.dumps({"readings": found}, indent=2) + "\n"


def printable(text: str) -> str:
    """A path as text, with escapes for bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _counted(reason: str, number: int) -> str:
    if number > 1 and reason not in _ADJECTIVES and not reason.startswith("without"):
        noun, of, rest = reason.partition(" of ")
        reason = f"{noun}s{of}{rest}"
    return f"{number:,} {reason}"
