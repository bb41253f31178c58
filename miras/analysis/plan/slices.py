"""The slice of a plan: a slice of `miras.parallel.slices`, or chips of the user's, with figures.

GPUs and described chips are joined by a switch, or one network; TPUs by a torus.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from miras.analysis.plan.chips import CHIPS, Chip
from miras.config import require
from miras.parallel import slices


class PlannedSlice(NamedTuple):
    """What a run has: slices of chips, all alike.

    Attributes:
        chip: of it.
        shape: of one slice; (n,) behind a switch.
        slices: their number.
        name: as in "v5e-256".
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int
    name: str

    @property
    def chips(self) -> int:
        """Of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def topology(self) -> str:
        """One slice as the compiler names it."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def planned_slice(text: str, described: Mapping[str, Chip] | None = None) -> PlannedSlice:
    """A slice by its name, see `miras.parallel.slices.parse_slice`; "cpu", or "NAME-N" of chips.

    Args:
        text: the name.
        described: chips of the user's own, by name.

    Raises:
        ConfigError: there is no such slice; the message has the legal ones.
    """
    found = re.fullmatch(r"(\w+?)(?:-(\d+))?", text.strip())
    own = described or {}
    if found is not None and found[1] in own:
        number = int(found[2] or 1)
        require(number >= 1, f"{text!r} has no chips: give {found[1]}-1 or more.")
        return PlannedSlice(own[found[1]], (number,), 1, text)
    parsed = slices.parse_slice(text)
    chip = CHIPS[parsed.generation.name]
    return PlannedSlice(chip, parsed.shape, parsed.count, parsed.name)
