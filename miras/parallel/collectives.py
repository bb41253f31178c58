"""Collectives of a compiled program: what devices send each other, and inside which loops.

Read from the text of the compiled program (`compiled.as_text()`), which XLA's cost analysis does
not show: it counts the body of a loop once.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$")
_OP = re.compile(r"= (.+?) (" + "|".join(KINDS) + r")(?:-start)?\(")
_WHILE = re.compile(r"\bwhile\(.*body=%?([\w.-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.-]+)")
_ALONE = re.compile(r"replica_groups=(?:\{\{\d+\}(?:,\{\d+\})*\}|\[\d+,1\]<)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"?known_trip_count"?:\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"\bcondition=%?([\w.-]+)")
_INTEGER = re.compile(r"%?([\w.-]+) = s32\[\]\S* constant\((\d+)\)")
_LESS = re.compile(r"ROOT .* compare\([^,]+, %?([\w.-]+)\), direction=LT")
_SHAPE = re.compile(r"\b(pred|[suf]\d+|bf16|f8\w*)\[([\d,]*)\]")
_NAME = re.compile(r'op_name="([^"]*)"')
_SENT = re.compile(r'= (.+?) send\(.*_xla_megascale_transfer_type="(\w+)"')


class Collective(NamedTuple):
    """A collective of a compiled program.

    Attributes:
        kind: one of `KINDS`.
        bytes: of its result on a device; of a pair of buffers, the larger.
        loops: the number of loops around it; the loop over accumulated batches and that over layers
            count.
        runs: how often it runs in a call, where the number of passes of its loops is known.
        name: of the operation in the source, as a profile shows it.
    """

    kind: str
    bytes: int
    loops: int
    runs: int
    name: str

    @property
    def depth(self) -> int:
        """The number of loops around it in the source, without those that the compiler makes.

        The compiler for TPUs makes a loop of a product of split matrices: it multiplies one part
        while the next arrives. Where it writes no names, as in programs for several slices, all
        loops count.
        """
        return self.name.count("while/body") if self.name else self.loops


def collectives(text: str) -> list[Collective]:
    """All collectives of a compiled program, from its text, but those of each device alone."""
    return list(_collectives(text))


def executed(text: str) -> Iterator[tuple[str, int, int]]:
    """The lines of the instructions of a compiled program, each with the loops around it and its
    runs in a call, where the number of passes of its loops is known.

    A computation that several instructions call comes once for each of them.
    """
    bodies, entry = _computations(text)
    return _within(bodies, entry, 0, 1)


def between_slices(text: str) -> list[tuple[str, int]]:
    """What leaves a TPU slice in a compiled program: (one of `KINDS`, bytes that a device sends).

    The compiler takes a collective over several slices apart: `collectives` has the part within a
    slice, and this is the part between slices, which goes through the hosts.
    """
    return [
        (sent[2].lower().replace("_", "-"), max(_bytes(*s) for s in _SHAPE.findall(sent[1])))
        for line in text.splitlines()
        if (sent := _SENT.search(line))
    ]


def _collectives(text: str) -> Iterator[Collective]:
    for line, loops, runs in executed(text):
        if (found := _OP.search(line)) and not _ALONE.search(line):
            source = _NAME.search(line)
            size = max((_bytes(*shape) for shape in _SHAPE.findall(found[1])), default=0)
            yield Collective(found[2], size, loops, runs, source[1] if source else "")


def _within(
    bodies: dict[str, list[str]], name: str, loops: int, runs: int
) -> Iterator[tuple[str, int, int]]:
    for line in bodies.get(name, ()):
        yield line, loops, runs
        if loop := _WHILE.search(line):
            yield from _within(bodies, loop[1], loops + 1, runs * _passes(bodies, line))
        else:
            inner = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                inner += [branch.strip().lstrip("%") for branch in branches.split(",")]
            for called in inner:
                yield from _within(bodies, called, loops, runs)


def _passes(bodies: dict[str, list[str]], loop: str) -> int:
    """Passes of a loop, or 1 if they are unknown.

    CPUs' and GPUs' compilers write them beside it. That for TPUs does not: its loops count from 0,
    and go on while the counter is less than a constant of their conditions.
    """
    if known := _TRIPS.search(loop):
        return int(known[1])
    condition = _CONDITION.search(loop)
    lines = bodies.get(condition[1], ()) if condition else ()
    constants = {found[1]: int(found[2]) for line in lines if (found := _INTEGER.search(line))}
    tests = [found[1] for line in lines if (found := _LESS.search(line))]
    return constants.get(tests[0], 1) if len(tests) == 1 else 1


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation by name, and the name of the first that runs."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            lines = bodies[header[2]] = []
            entry = header[2] if header[1] else entry
        elif line.startswith(" "):
            lines.append(line)
    return bodies, entry


def _bytes(dtype: str, shape: str) -> int:
    bits = 8 if dtype == "pred" else int(re.sub(r"^\D+", "", dtype.split("e")[0]))
    return math.prod(int(size) for size in shape.split(",") if size) * bits // 8
