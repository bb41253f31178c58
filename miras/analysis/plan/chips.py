"""Chips: published figures of TPUs and GPUs, and what is assumed where nothing is published."""

import dataclasses
from typing import Literal

from miras.config import Config, require

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class MatrixUnits:
    """The systolic arrays of a TPU's TensorCore.

    Attributes:
        number: of them in a core.
        size: rows and columns of one, >= 1.
        rows: of an operand that one takes in a cycle, >= 1.
    """

    number: int
    size: int
    rows: int = 1


@dataclasses.dataclass(frozen=True)
class Chip(Config):
    """A chip, its memory and its links. A file of these fields describes any other (`--chip`).

    Attributes:
        name: as in "v5e".
        flops: bfloat16 FLOP/s at the peak, > 0.
        hbm: bytes of memory that a program may use, > 0.
        bandwidth: bytes/s of the memory, > 0.
        link: bytes/s of one link in one direction, > 0.
        torus: dimensions of the torus of links; 0 for a switch, to which each chip has one link.
        wraps: size of which an axis of the torus is a multiple where it is closed to a ring; 0 for
            never.
        network: bytes/s of a chip between slices, or between GPU hosts, > 0.
        cores: TensorCores of a chip.
        units: of a core; None for chips whose kernels are bounded by FLOP/s alone.
        efficiency: share of `flops` that large products reach, in (0, 1].
        small: share that the small products of memories reach where no schedule of a kernel says
            it, in (0, 1].
        kind: "tpu", "gpu" or "cpu".
        source: where the figures are published.
    """

    name: str
    flops: float
    hbm: float
    bandwidth: float
    link: float = 1e9
    torus: int = 0
    wraps: int = 0
    network: float = 1e9
    cores: int = 1
    units: MatrixUnits | None = None
    efficiency: float = 0.7
    small: float = 0.1
    kind: Literal["tpu", "gpu", "cpu"] = "cpu"
    source: str = ""

    def validate(self) -> None:
        """Check ranges."""
        for name in ("flops", "hbm", "bandwidth", "link", "network", "cores"):
            value = getattr(self, name)
            require(value > 0, f"chip.{name}={value} must be positive.")
        require(0 < self.efficiency <= 1, f"chip.efficiency={self.efficiency} must lie in (0, 1].")

    @property
    def clock(self) -> float:
        """Cycles/s at which all matrix units together have the published peak; 0 without units."""
        units = self.units
        if units is None:
            return 0.0
        per_cycle = self.cores * units.number * units.rows * units.size**2 * 2
        return self.flops / per_cycle

    def assumption(self) -> str:
        """How the clock is derived, in words; "" without matrix units."""
        units = self.units
        if units is None:
            return ""
        many = "" if units.rows == 1 else f", each of which takes {units.rows} rows a cycle"
        return (
            f"clock of {self.name}: {self.clock / 1e9:.2f} GHz, from the published peak "
            f"{self.flops / 1e12:.0f} TFLOP/s = {self.cores} core{'s'[: self.cores != 1]} x "
            f"{units.number} matrix units of {units.size} x {units.size}{many} x 2 x clock"
        )


_CLOUD = "https://cloud.google.com/tpu/docs/"

# TPUs: peak, HBM bandwidth, links and network are from the page of each chip ("Bidirectional
# inter-chip interconnect bandwidth" is over all ports and both directions; a chip's share of the
# network is that of its host's cards). Usable HBM is what the compiler names when a program does
# not fit. Matrix units: the same pages, and `get_tpu_info` of jax.experimental.pallas.tpu. The two
# units of a v6e would need 3.5 GHz with a row a cycle; two rows at 1.75 GHz is an assumption.
# GPUs: NVIDIA's data sheets of the SXM modules, dense bfloat16; the network is one
# card a GPU, as in a DGX.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            flops=275e12,
            hbm=30.5 * GIB,
            bandwidth=1228e9,
            link=50e9,
            torus=3,
            wraps=4,
            network=6.25e9,
            cores=2,
            units=MatrixUnits(4, 128),
            kind="tpu",
            source=_CLOUD + "v4",
        ),
        Chip(
            name="v5e",
            flops=197e12,
            hbm=15.75 * GIB,
            bandwidth=819e9,
            link=50e9,
            torus=2,
            wraps=16,
            network=3.125e9,
            units=MatrixUnits(4, 128),
            kind="tpu",
            source=_CLOUD + "v5e",
        ),
        Chip(
            name="v5p",
            flops=459e12,
            hbm=95.74 * GIB,
            bandwidth=2765e9,
            link=100e9,
            torus=3,
            wraps=4,
            network=6.25e9,
            cores=2,
            units=MatrixUnits(4, 128),
            kind="tpu",
            source=_CLOUD + "v5p",
        ),
        Chip(
            name="v6e",
            flops=918e12,
            hbm=31.25 * GIB,
            bandwidth=1638e9,
            link=100e9,
            torus=2,
            wraps=16,
            network=12.5e9,
            units=MatrixUnits(2, 256, rows=2),
            kind="tpu",
            source=_CLOUD + "v6e",
        ),
        Chip(
            name="a100",
            flops=312e12,
            hbm=79 * GIB,
            bandwidth=2039e9,
            link=300e9,
            network=25e9,
            efficiency=0.6,
            kind="gpu",
            source="https://www.nvidia.com/en-us/data-center/a100/",
        ),
        Chip(
            name="h100",
            flops=989e12,
            hbm=79 * GIB,
            bandwidth=3350e9,
            link=450e9,
            network=50e9,
            efficiency=0.6,
            kind="gpu",
            source="https://www.nvidia.com/en-us/data-center/h100/",
        ),
        Chip(
            name="h200",
            flops=989e12,
            hbm=140 * GIB,
            bandwidth=4800e9,
            link=450e9,
            network=50e9,
            efficiency=0.6,
            kind="gpu",
            source="https://www.nvidia.com/en-us/data-center/h200/",
        ),
        Chip(
            name="b200",
            flops=2250e12,
            hbm=178 * GIB,
            bandwidth=7700e9,
            link=900e9,
            network=50e9,
            efficiency=0.6,
            kind="gpu",
            source="https://www.nvidia.com/en-us/data-center/dgx-b200/",
        ),
    )
}
