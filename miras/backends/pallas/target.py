"""Target: which kind of device a call is compiled for, be it here or not."""

import jax

ROWS, LANES = 8, 128  # of a register of a TPU
CAPABILITY = 8.0  # that Triton needs of a GPU: Ampere's
KINDS = {"cuda": "gpu", "rocm": "gpu"}


def platform() -> str:
    """Kind "tpu", "gpu" or "cpu": of the mesh in context, else where jax computes by default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    name = jax.default_backend() if device is None else device.platform
    return KINDS.get(name, name)


def capability() -> float | None:
    """The compute capability of the GPU here, such as 9.0; None where no NVIDIA GPU is."""
    if jax.default_backend() != "gpu":
        return None
    found = getattr(jax.local_devices()[0], "compute_capability", None)
    try:
        return float(found)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):  # AMD's are names
        return None
