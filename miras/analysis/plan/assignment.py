"""What is live at the peak of a compiled program, from the files that XLA dumps.

The buffer assignment lists every value with its place in HBM, and the live ranges say from which to
which instruction it is live. The peak is the instruction at which the live values take most bytes;
where several share bytes, these count once. XLA's own list of the peak leaves out loops that are
nested in it, so that the peak is computed here.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

FLAGS = "--xla_dump_to={} --xla_dump_hlo_as_text"  # of XLA_FLAGS, with the name of a folder

_ALLOCATION = re.compile(r"allocation (\d+): size (\d+),(.*)")
_ARGUMENT = re.compile(r" parameter (\d+), shape \|(\w+)\[([\d,]*)\]")
_PARAMETER = re.compile(r" parameter\((\d+)\).*op_name=\"([^\"]*)\"")
_VALUE = re.compile(
    r" value: <\d+ (\S+?)(\{[\d,]*\})? (?:\(phi\) )?@\d+> \(size=(\d+),offset=(\d+)\): "
    r"(\w+)\[([\d,]*)\]"
)
_RANGE = re.compile(r"\s+(\S+\{[\d,]*\}):(\d+)-(\d+)\s*$")
_NAMED = re.compile(r'\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]*)"')


class Buffer(NamedTuple):
    """A value that is live at the peak.

    Attributes:
        bytes: that it adds to those that share its place.
        dtype: as in "bf16".
        shape: its dimensions.
        source: the operation, or the argument, in the source.
        argument: whether it is an argument of the program.
    """

    bytes: int
    dtype: str
    shape: tuple[int, ...]
    source: str
    argument: bool


class _Value(NamedTuple):
    allocation: int
    offset: int
    size: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    first: int
    last: int


def at_peak(folder: Path, module: str = "jit_step") -> list[Buffer]:
    """The buffers at the peak of a program that was compiled with `FLAGS`.

    Args:
        folder: the folder that the flags named.
        module: part of the program's name.
    """
    (file,) = folder.glob(f"*.{module}*.after_optimizations-buffer-assignment.txt")
    stem = str(file).removesuffix("-buffer-assignment.txt")
    assigned = file.read_text().splitlines()
    program = Path(f"{stem}_after_buffer_assignment.txt").read_text().splitlines()
    ranges = dict(_ranges(Path(f"{stem}-live-range.txt").read_text().splitlines()))
    values = list(_temporaries(assigned, ranges))
    sources = {found[1]: found[2] for line in program if (found := _NAMED.match(line))}
    live = [
        Buffer(size, x.dtype, x.shape, sources.get(x.name.partition("{")[0], ""), False)
        for x, size in _occupied(values, _peak(values))
    ]
    return [*_arguments(assigned, program), *live]


def _arguments(assigned: Iterable[str], program: Iterable[str]) -> Iterator[Buffer]:
    names = {found[1]: found[2] for line in program if (found := _PARAMETER.search(line))}
    for line in assigned:
        whole, argument = _ALLOCATION.match(line), _ARGUMENT.search(line)
        if whole and argument:
            source = names.get(argument[1], "").replace("\\'", "'")
            yield Buffer(int(whole[2]), argument[2], _shape(argument[3]), source, True)


def _ranges(lines: Iterable[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for line in lines:
        if found := _RANGE.match(line):
            yield found[1], (int(found[2]), int(found[3]))


def _temporaries(lines: Iterable[str], ranges: dict[str, tuple[int, int]]) -> Iterator[_Value]:
    """The values of temporary allocations in HBM, which has no color."""
    number, counts = -1, False
    for line in lines:
        if found := _ALLOCATION.match(line):
            number = int(found[1])
            counts = "preallocated-temp" in found[3] and "color" not in found[3]
        elif counts and (found := _VALUE.match(line)):
            name = found[1] + (found[2] or "{}")
            if name in ranges:
                size, offset = int(found[3]), int(found[4])
                shape = _shape(found[6])
                yield _Value(number, offset, size, name, found[5], shape, *ranges[name])


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)


def _peak(values: list[_Value]) -> int:
    """The instruction at which the values take most bytes; one at which a value begins."""
    changes: dict[int, int] = {}
    for value in values:  # an upper bound by counting shared bytes as often as they are shared
        changes[value.first] = changes.get(value.first, 0) + value.size
        changes[value.last + 1] = changes.get(value.last + 1, 0) - value.size
    bound, live = {}, 0
    for at in sorted(changes):
        live += changes[at]
        bound[at] = live
    best, most = 0, -1
    for at in sorted(bound, key=lambda at: -bound[at]):
        if bound[at] <= most:
            break
        size = sum(size for _, size in _occupied(values, at))
        if size > most:
            best, most = at, size
    return best


def _occupied(values: list[_Value], at: int) -> Iterator[tuple[_Value, int]]:
    """The values that are live at an instruction, each with the bytes that it adds."""
    live = [value for value in values if value.first <= at <= value.last]
    allocation, end = -1, 0
    for value in sorted(live, key=lambda x: (x.allocation, x.offset, -x.size)):
        if value.allocation != allocation:
            allocation, end = value.allocation, 0
        after = value.offset + value.size
        if after > end:
            yield value, after - max(value.offset, end)
            end = after
