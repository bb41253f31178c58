"""The config of a mesh: how many devices share the rows, the parameters, the time and the heads."""

import dataclasses
import math
from typing import Literal

from miras.config import Config, require

AXES = ("data", "fsdp", "seq", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig(Config):
    """The axes of a mesh of devices, whose product is the number of devices.

    The numbers that a run computes do not depend on it, up to rounding: a run resumes on any mesh.

    Attributes:
        data: copies of the model, each with its own rows of a batch, >= 1; -1 for as many as fill
            the devices.
        fsdp: devices that share the rows of a copy and split its parameters and optimiser state
            (1910.02054, stage 3), >= 1; -1 for as many as fill the devices.
        seq: devices that split the tokens of a row, >= 1; inside memories and attention they split
            the heads (2309.14509).
        tensor: devices that split heads, hidden channels and the vocabulary (1909.08053), >= 1.
        slices: TPU slices or GPU islands with a slower network between them, a divisor of `data`:
            only copies of the model are on different slices.
        max_replicated: largest share of the bytes of the training state that every device may keep
            whole where `fsdp` or `tensor` could split it, in [0, 1].

    Raises:
        ConfigError: a value is out of range.
    """

    data: int = 1
    fsdp: int = -1
    seq: int = 1
    tensor: int = 1
    slices: int = 1
    max_replicated: float = 0.02

    def validate(self) -> None:
        """Check ranges."""
        for name in AXES:
            size = getattr(self, name)
            fills = name in ("data", "fsdp")
            require(
                size >= 1 or (fills and size == -1),
                f"mesh.{name}={size} must be at least 1"
                f"{', or -1 to fill the devices' if fills else ''}.",
            )
        require(
            (self.data, self.fsdp) != (-1, -1),
            "mesh.data=-1 and mesh.fsdp=-1 cannot both fill the devices: give one of them.",
        )
        require(self.slices >= 1, f"mesh.slices={self.slices} must be at least 1.")
        require(
            self.data == -1 or self.data % self.slices == 0,
            f"mesh.data={self.data} must be a multiple of mesh.slices={self.slices}, since only "
            "copies of the model are on different slices.",
        )
        require(
            0 <= self.max_replicated <= 1,
            f"mesh.max_replicated={self.max_replicated} must lie in [0, 1].",
        )

    def standing(self, name: str) -> Literal["own", "deeper", "hidden"]:
        """`data` without a prefix is the data of a run."""
        del name
        return "deeper"

    def sizes(self, devices: int) -> dict[str, int]:
        """The size of each axis, in the order of the mesh.

        Args:
            devices: the number of all devices, of all processes.

        Raises:
            ConfigError: the axes do not multiply to the number of devices.
        """
        sizes = {name: getattr(self, name) for name in AXES}
        given = math.prod(size for size in sizes.values() if size != -1)
        shown = " x ".join(f"mesh.{name}={size}" for name, size in sizes.items() if size != -1)
        filled = [name for name, size in sizes.items() if size == -1]
        require(
            devices % given == 0 if filled else devices == given,
            f"{shown} = {given} does not fit {devices} device{'s'[: devices != 1]}: "
            f"{_advice(filled, given, devices)}.",
        )
        for name in filled:
            sizes[name] = devices // given
        require(
            sizes["data"] % self.slices == 0,
            f"mesh.data={sizes['data']} (which fills {devices} devices) must be a multiple of "
            f"mesh.slices={self.slices}.",
        )
        return sizes


def _advice(filled: list[str], given: int, devices: int) -> str:
    if given > devices:
        return f"lower the product to {devices}, or start on {given} devices"
    if filled:
        return f"the product must divide {devices}"
    return f"set one of mesh.data and mesh.fsdp to -1, or make the product {devices}"
