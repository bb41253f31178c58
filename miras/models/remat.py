"""Rematerialisation: what a block recomputes in the backward pass, by the name of a policy."""

from collections.abc import Callable
from typing import Any, Literal

import jax

from miras.config import require
from miras.engine.saved import OUTPUT, STATE

Remat = bool | Literal["none", "full", "minimal", "save_memory_outputs", "offload"]


def canonical(remat: Remat) -> Remat:
    """True for "full" and False for "none", which are the values of earlier configs."""
    return {"full": True, "none": False}.get(remat, remat) if isinstance(remat, str) else remat


def rematerialised(run: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """`run` of a block, whose backward pass recomputes what the policy does not keep."""
    if remat is False:
        return run
    from flax import nnx  # configs load without flax

    return nnx.remat(run, policy=_policy(remat))


def check(remat: Remat) -> None:
    """Raise `ConfigError` for a policy that this device does not support."""
    if remat == "offload":
        device = jax.local_devices()[0]
        kinds = [memory.kind for memory in device.addressable_memories()]
        require(
            "pinned_host" in kinds,
            f"model.remat='offload' needs a device with the memory 'pinned_host', and {device} has "
            f"{', '.join(kinds)}: use model.remat=save_memory_outputs.",
        )


def _policy(remat: Remat) -> Callable[..., Any] | None:
    policies = jax.checkpoint_policies
    named = policies.save_only_these_names(OUTPUT, STATE)
    if remat == "save_memory_outputs":
        return named
    if remat == "minimal":
        return policies.save_from_both_policies(named, policies.dots_with_no_batch_dims_saveable)
    if remat == "offload":
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[OUTPUT, STATE],
            offload_src="device",
            offload_dst="pinned_host",
        )
    return None
