"""Slices: a number of chips and the shape of their network, by Google's names or by topology.

v5e-256 and v6e-64 count chips. v5p-128 and v4-128 count TensorCores, of which a chip has two.
v5e:16x16 and v5p:4x4x4 are topologies. 2*v5e-256 is two slices; h100-16 is two hosts of eight GPUs.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from miras.analysis.plan.chips import CHIPS, Chip
from miras.config import require
from miras.config.choices import unknown

# Shapes that Google offers, https://cloud.google.com/tpu/docs/v5e, v6e, v5p and v4.
_PLANES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_CUBES = (
    *((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8)),
    *((8, 8, 12), (8, 8, 16), (8, 16, 16), (16, 16, 16), (16, 16, 24)),
)
_HOST = 8  # GPUs that one NVLink switch joins
_ALIASES = {"v5litepod": "v5e"}


class Slice(NamedTuple):
    """What a run has: slices of chips, all alike.

    Attributes:
        chip: of it.
        shape: of one slice; (n,) behind a switch.
        slices: their number.
        name: as it was given.
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
        """As the compiler names a slice."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_slice(text: str, described: Mapping[str, Chip] | None = None) -> Slice:
    """A slice by its name, such as "v5e-256", "v5e:16x16", "2*v6e-64", "h200-8" or "cpu".

    Args:
        text: the name.
        described: chips of the user's own, by name.

    Raises:
        ConfigError: there is no such chip or slice; the message has the legal ones.
    """
    found = re.fullmatch(r"(?:(\d+)\*)?(\w+?)(?:-(\d+)|:([\dx]+))?", text.strip().lower())
    known = {**CHIPS, **(described or {})}
    require(
        found is not None,
        f"{text!r} is not a slice: give a name such as v5e-256, a topology such as v5e:16x16, or "
        "2*v5e-256 for two slices.",
    )
    assert found is not None
    count, name, number, topology = found.groups()
    name = _ALIASES.get(name, name)
    if name not in known:
        raise unknown("chip", name, known)
    chip, slices = known[name], int(count or 1)
    require(slices >= 1, f"{text!r} has no slices: give at least 1*{name}.")
    if chip.torus == 0:
        return _behind_switch(text, chip, int(number or topology or 1), slices)
    shapes = _PLANES if chip.torus == 2 else _CUBES
    if topology:
        shape = tuple(int(n) for n in topology.split("x") if n)
        legal = [f"{name}:{'x'.join(map(str, shape))}" for shape in shapes]
        require(
            sorted(shape) in [sorted(known) for known in shapes],
            f"{text!r} is no topology of {name}: use {_listed(legal)}.",
        )
        return Slice(chip, shape, slices, text)
    by_number = {math.prod(shape) * chip.cores: shape for shape in shapes}
    legal = [f"{name}-{n}" for n in by_number]
    counts = "TensorCores, two a chip" if chip.cores == 2 else "chips"
    require(
        number is not None and int(number) in by_number,
        f"{text!r} is no slice of {name}, whose number counts {counts}: use {_listed(legal)}, or a "
        f"topology such as {name}:{'x'.join(map(str, shapes[4]))}.",
    )
    assert number is not None
    return Slice(chip, by_number[int(number)], slices, text)


def _behind_switch(text: str, chip: Chip, number: int, slices: int) -> Slice:
    """GPUs: hosts of eight are islands with a slower network between them."""
    require(
        1 <= number <= _HOST or number % _HOST == 0,
        f"{text!r} must have 1 to {_HOST} GPUs, or whole hosts of {_HOST}.",
    )
    return Slice(chip, (number,), slices, text)


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
