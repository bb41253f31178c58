"""Schedule: what the TPU's compiler says of a kernel, read from the files that it dumps.

A bundle is what a core issues in one cycle. The dump lists a kernel's bundles in their final order,
each line marked with the loops that it stands in, and for each how many of the core's units it
uses. That is a lower bound of the kernel's time which no busy machine disturbs.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# For LIBTPU_INIT_ARGS, with the name of a folder. Without the expression the listings of all passes
# are dumped: 3 GB of a step of two layers.
FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=final_"

_BUNDLE = re.compile(r"^ *(?:0x[0-9a-f]+|0) *(?:([A-Z]{2}):)? *:? *(>*) *\{")
_UNITS = re.compile(r"^\d+( \d+)+ *$")


class Kernel(NamedTuple):
    """A kernel's final schedule.

    Attributes:
        bundles: that a step of the grid takes.
        spills: registers that are stored for want of registers, all that are listed.
        vmem: bytes of VMEM, spilled registers included.
    """

    bundles: float
    spills: int
    vmem: int


def bundles(dump: Path, instruction: str, trips: Sequence[float]) -> float:
    """Bundles of a grid step of one kernel of a program.

    Args:
        dump: the folder that FLAGS named.
        instruction: of the compiled program, as in "miras_forward.3".
        trips: how often each loop inside of a grid step runs in it, in their order.

    Raises:
        ValueError: the dump has no listing of it, or one with another number of loops.
    """
    listings = sorted(dump.glob(f"*-{instruction}-[0-9]*[0-9]-final_bundles.txt"))
    if not listings:
        raise ValueError(f"the compiler dumped no schedule of {instruction}")
    return _bundles(listings[-1].read_text().splitlines(), trips)


def read(dump: Path, name: str, trips: Sequence[float]) -> Kernel:
    """The schedule of the only kernel of this name.

    Args:
        dump: the folder that FLAGS named.
        name: of the `pallas_call`.
        trips: how often each loop inside of a grid step runs in it, in their order.
    """
    (listing,) = dump.glob(f"*-{name}.*[0-9]-final_bundles.txt")
    (units,) = dump.glob(f"*-{name}.*final_hlo-static-per-bundle-utilization.txt")
    (report,) = dump.glob("*vmem_report.html")
    return Kernel(
        _bundles(listing.read_text().splitlines(), trips),
        sum(int(line.split()[8]) for line in units.read_text().splitlines() if _UNITS.match(line)),
        _vmem(report.read_text(), name),
    )


def _bundles(lines: Sequence[str], trips: Sequence[float]) -> float:
    """Bundles of a grid step: those of the outer loop, and of loops inside it by their trips.

    What is skipped but for the first or the last step (a region behind a branch) is left out.
    """
    # Of each bundle: 0 for the grid's loop, 1, 2, ... for those inside, in their order, -1 outside.
    loops: list[int] = []
    branch: dict[int, int] = {}  # by depth, where the last branch stands
    current = {0: -1, 1: 0}  # by depth, the loop
    inside = 0
    for line in lines:
        match = _BUNDLE.match(line)
        if not match:
            continue
        label, depth = match[1], len(match[2])
        if label == "LB":
            branch.pop(depth, None)
            if depth >= 2:
                inside += 1
                current[depth] = inside
        loop = current.get(depth, inside)
        if label == "PF" and depth in branch:
            start = branch.pop(depth) + 5  # behind the branch and its four delay slots
            loops[start:] = [-1 if each == loop else each for each in loops[start:]]
        if "sbr.rel" in line:
            branch[depth] = len(loops)
        loops.append(loop)
    if inside != len(trips):
        raise ValueError(f"the kernel has {inside} loops in a grid step, not {len(trips)}")
    return loops.count(0) + sum(n * loops.count(i) for i, n in enumerate(trips, 1))


def _vmem(report: str, name: str) -> int:
    start = report.index("{", report.index("const DATA"))
    data, _ = json.JSONDecoder().raw_decode(report[start:])
    return sum(
        kernel["total_size"]
        for key, kernel in data["hlo_breakdowns"].items()
        if key.startswith(name)
    )
