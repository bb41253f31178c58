"""A plan as plain values, for `--json` and for results that are kept."""

from typing import Any

from miras.analysis.plan.predict import Prediction
from miras.config.comparison import config_hash


def as_dict(
    plan: Prediction, tokens: int | None = None, price: float | None = None
) -> dict[str, Any]:
    """Everything that the tables say: bytes of a chip, seconds of a step, FLOPs of all chips.

    Args:
        plan: the plan.
        tokens: to train on, for hours.
        price: of a chip-hour.
    """
    job, on = plan.job, plan.job.slice
    flops = plan.flops
    found: dict[str, Any] = {
        "slice": on.name,
        "topology": on.topology,
        "chips": on.chips,
        "mesh": job.sizes,
        "config": config_hash(job.config),
        "parameters": job.parameters,
        "tokens": job.step_tokens,
        "batch": job.config.data.batch,
        "accumulate": job.config.train.accumulate,
        "remat": job.remat,
        "memory": {**plan.memory._asdict(), "peak": plan.memory.peak},
        "hbm": on.chip.hbm,
        "fits": plan.fits,
        "flops": {
            name: getattr(flops, name)
            for name in ("logits", "projections", "channels", "attention", "update", "read")
        }
        | {"model": flops.model, "hardware": flops.hardware},
        "traffic": [exchange._asdict() for exchange in plan.traffic],
        "seconds": {
            name: getattr(plan, name)
            for name in ("products", "hbm", "kernels", "hidden", "exposed", "step")
        },
        "kernels_by_fit": plan.fitted,
        "bound": plan.bound,
        "utilisation": plan.utilisation,
        "tokens_per_second": plan.tokens_per_second,
        "tokens_per_second_per_chip": plan.tokens_per_second / on.chips,
        "assumptions": list(plan.assumptions),
    }
    if tokens is not None:
        hours = plan.hours(tokens)
        found["training"] = {"tokens": tokens, "hours": hours, "chip_hours": hours * on.chips}
        if price is not None:
            found["training"]["price"] = hours * on.chips * price
    return found


def replicated(plan: Prediction) -> tuple[int, str]:
    """Bytes of the state that every chip has whole, and the name of the largest such array."""
    whole = [leaf for leaf in plan.job.leaves if not leaf.split]
    largest = max(whole, key=lambda leaf: leaf.bytes)
    return sum(leaf.bytes for leaf in whole), ".".join(largest.path)
