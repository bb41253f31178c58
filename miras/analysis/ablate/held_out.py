"""The held-out data of a grid, which all of its runs have in common.

The variance over seeds is then that of initialisation and of the order of training alone, and the
difference of two cells is none of their texts. Seeds keep `data.content_seed`; cells whose
memories have different chunks get a common `data.held_out_align`, as the first token of a document
is aligned to chunks. Cells with other rows (`data.sequence`, `data.batch`), another source or
tokenizer cannot share their held-out data: `digest` tells them apart.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from miras.train import RunConfig


def common(configs: "Sequence[RunConfig]") -> "Callable[[RunConfig], RunConfig]":
    """Gives configs whose rows have one length the held-out rows that all of them can read.

    Args:
        configs: of all cells.

    Returns:
        A function from a config of a cell to the config with a common `data.held_out_align`. A
        config whose chunk is a multiple of all others is not changed.
    """
    aligns: dict[int, int] = {}  # by the length of rows, which each divides
    for config in configs:
        length, align = config.data.sequence, config.model.align
        if config.data.task is None and length % align == 0:
            here = math.lcm(align, config.data.held_out_align)
            aligns[length] = math.lcm(aligns.get(length, 1), here)

    def change(config: "RunConfig") -> "RunConfig":
        data, align = config.data, config.model.align
        wanted = aligns.get(data.sequence, 1)
        now = math.lcm(align, data.held_out_align)
        if data.task is not None or data.sequence % align or wanted == now:
            return config
        return dataclasses.replace(config, data=dataclasses.replace(data, held_out_align=wanted))

    return change


def digest(batches: Iterable[Mapping[str, Any]]) -> str:
    """Sixteen hex digits of the counted targets of batches, in order.

    Of rows that are not tokens with a target each, all arrays count.
    """
    found = hashlib.sha256()
    for batch in batches:
        if not {"targets", "mask"} <= batch.keys() or (
            np.shape(batch["targets"]) != np.shape(batch["mask"])
        ):
            for name in sorted(batch):
                found.update(batch[name].tobytes())
            continue
        for targets, mask in zip(batch["targets"], batch["mask"], strict=True):
            found.update(targets[mask].tobytes())
    return found.hexdigest()[:16]
