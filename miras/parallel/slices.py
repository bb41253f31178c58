"""Slices of accelerators by their names: `v5e-256`, `v5p-128`, `v5e:16x16`, `2xv5e-256`, `h100-16`.

The number in the name of a TPU slice is that of its chips, or of its TensorCores, of which v4 and
v5p have two a chip: v5p-128 has 64 chips. Shapes and hosts are those of Google's documentation,
https://cloud.google.com/tpu/docs/v5e and the pages of the other generations. GPUs have 8 a host.
"""

import dataclasses
import math
import re

from miras.config.choices import shown, unknown
from miras.errors import ConfigError
from miras.parallel.config import MeshConfig

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_LARGE_CUBES = (*_CUBES, "8x8x12", "8x8x16", "8x16x16", "16x16x16", "16x16x24")


@dataclasses.dataclass(frozen=True)
class Generation:
    """A kind of accelerator.

    Attributes:
        name: as in the names of its slices.
        type: what Cloud TPU's API calls it; "" for a GPU.
        shapes: of its slices; () for a GPU, of which any number of whole hosts is one.
        cores: that the number in a slice's name counts, per chip.
        host: most chips of a host: of a slice of one host, and of several.
        runtime: the software of a TPU VM; "" for a GPU.
    """

    name: str
    type: str = ""
    shapes: tuple[str, ...] = ()
    cores: int = 1
    host: tuple[int, int] = (8, 8)
    runtime: str = ""

    @property
    def is_tpu(self) -> bool:
        """Whether it is a TPU; otherwise it is a GPU."""
        return bool(self.shapes)


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", "v4", _LARGE_CUBES, 2, (4, 4), "tpu-ubuntu2204-base"),
        Generation("v5e", "v5litepod", _FLAT, 1, (8, 4), "v2-alpha-tpuv5-lite"),
        Generation("v5p", "v5p", _LARGE_CUBES, 2, (4, 4), "v2-alpha-tpuv5"),
        Generation("v6e", "v6e", _FLAT, 1, (8, 4), "v2-alpha-tpuv6e"),
        *map(Generation, ("a100", "h100", "h200", "b200")),
    )
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One or more equal slices of TPUs, or hosts of GPUs.

    Attributes:
        generation: of its chips.
        shape: of one slice, as in (16, 16); (chips,) for GPUs.
        count: number of slices, >= 1; 1 for GPUs.
    """

    generation: Generation
    shape: tuple[int, ...]
    count: int = 1

    @property
    def chips(self) -> int:
        """Chips of one slice."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Chips of all slices, each of which is one device of jax (v4 and v5p included)."""
        return self.count * self.chips

    @property
    def hosts(self) -> int:
        """Hosts of one slice, each of which is one process of a run."""
        alone, several = self.generation.host
        return 1 if self.chips <= alone else self.chips // several

    @property
    def chips_per_host(self) -> int:
        """Chips of each host."""
        return self.chips // self.hosts

    @property
    def name(self) -> str:
        """The name, as in "v5p-128"; for several, "2xv5e-256"."""
        many = f"{self.count}x" if self.count > 1 else ""
        return f"{many}{self.generation.name}-{self.chips * self.generation.cores}"

    @property
    def accelerator(self) -> str:
        """The accelerator type of one slice in Cloud TPU's API, as in "v5litepod-256"."""
        return f"{self.generation.type}-{self.chips * self.generation.cores}"

    @property
    def topology(self) -> str:
        """One slice as libtpu names it, as in "v5e:16x16"."""
        return f"{self.generation.name}:{'x'.join(map(str, self.shape))}"


def parse_slice(name: str) -> Slice:
    """The slice, or slices, of a name.

    Args:
        name: "v5e-256" or "v5litepod-256", "v5e:16x16", "h100-16"; "2xv5e-256" or
            "2*v5e-256" for two.

    Raises:
        ConfigError: no such slice is offered; the message names those of its generation.
    """
    found = re.fullmatch(r"(?:(\d{1,4})[x*])?([a-z]\w*)([-:])([\dx]+)", name.strip().lower())
    if found is None:
        raise ConfigError(
            f"slice {shown(name)} is not of the form v5e-256, v5e:16x16 or 2xv5e-256."
        )
    count, kind, mark, size = found.groups()
    aliases = {generation.type: name for name, generation in GENERATIONS.items()}
    kind = aliases.get(kind, kind)
    if kind not in GENERATIONS:
        raise unknown("kind of accelerator", kind, GENERATIONS)
    generation, count = GENERATIONS[kind], int(count or 1)
    legal = slices_of(generation)
    names = {(each.name if mark == "-" else each.topology): each for each in legal}
    if generation.is_tpu:
        if f"{kind}{mark}{size}" not in names:
            raise unknown("slice", name, names)
        if count < 1:
            raise ConfigError(f"slice {shown(name)} is of 0 slices: give 1 or more.")
        return dataclasses.replace(names[f"{kind}{mark}{size}"], count=count)
    if mark == ":" or count != 1 or not size.isdecimal() or not _are_hosts(int(size)):
        raise ConfigError(
            f"slice {shown(name)} is not of whole hosts of GPUs: give {kind}-1 to {kind}-8, or a "
            f"multiple of 8, as in {kind}-16."
        )
    return Slice(generation, (int(size),))


def mesh_of(found: Slice, rows: int) -> MeshConfig:
    """The mesh of a run: each slice has a copy of the state, which its chips split.

    `fsdp` is the largest number of chips of a slice that share its rows equally, and `tensor` has
    the others.

    Args:
        found: the slice, or slices.
        rows: of a batch, of which each slice has the same number.

    Raises:
        ConfigError: the slices do not divide the rows.
    """
    if rows % found.count:
        raise ConfigError(
            f"data.batch={rows} must be a multiple of the {found.count} slices of {found.name}."
        )
    fsdp = math.gcd(found.chips, rows // found.count)
    return MeshConfig(data=found.count, fsdp=fsdp, tensor=found.chips // fsdp, slices=found.count)


def slices_of(generation: Generation) -> list[Slice]:
    """The slices of TPUs of a generation, from the smallest; none of GPUs."""
    return [Slice(generation, tuple(map(int, shape.split("x")))) for shape in generation.shapes]


def _are_hosts(gpus: int) -> bool:
    return 1 <= gpus <= 8 or (gpus > 0 and gpus % 8 == 0)
