"""The cells of `experiments.ablations`: what each changes, and what the papers report of it.

MIRAS (2504.13173) compares mean scores on language tasks, where Yaad has 53.98: without retention
50.63, with a linear memory 51.57, with a fixed threshold 52.19, without the l2 branch 52.86, and
without the l1 branch 53.04. Of p in {1, 1.5, 2, 2.8, 3, 3.2, 4} it finds 3 best and 4 worst. Titans
(2501.00663), figure 7: the perplexity falls with the depth of the memory. TNT (2511.07343): large
chunks cost quality; in figure 2 a model trained at chunk 64 has a perplexity of 13.78 where it is
read at 64, and of 36.45 at 8.
"""

from typing import Any, NamedTuple

SILENT = {"algorithm.lr": 1e-8, "algorithm.max_lr": 1e-7}  # writes nothing that a read could see
STALE = ("worse: perplexity 36.45 at 8, 13.78 at 64", 1)
SIGN = {"kind": "l1", "smooth": False}  # of every residual, as in the l1 branch of Yaad


class Cell(NamedTuple):
    """A change of a preset.

    Attributes:
        name: in the table.
        point: the fields that it sets.
        paper: what a paper reports of it, against the preset.
        direction: the sign of the difference in loss that this implies; 0 if none is reported.
    """

    name: str
    point: dict[str, Any]
    paper: str
    direction: int


class Axis(NamedTuple):
    """The cells of a table, which change one thing of a preset."""

    title: str
    preset: str
    own: str
    cells: tuple[Cell, ...]


class Reading(NamedTuple):
    """A trained cell whose model is read with other fields.

    Attributes:
        cell: its name.
        name: of the reading.
        point: the fields that it sets.
        paper: what a paper reports of it, against the model as it was trained.
        direction: as of a cell.
    """

    cell: str
    name: str
    point: dict[str, Any]
    paper: str
    direction: int


def _p(p: float, more: str = "") -> Cell:
    return Cell(f"p = {p:g}", {"bias.p": p}, f"worse: 3 is best{more}", 1)


def _chunk(chunk: int) -> Cell:
    word, sign = ("better", -1) if chunk < 16 else ("worse", 1)
    return Cell(f"chunk {chunk}", {"chunk": chunk}, f"{word}: small chunks are", sign)


AXES = (
    Axis(
        "Whether Yaad's memory is written",
        "yaad",
        "written",
        (Cell("not written", SILENT, "not reported", 0),),
    ),
    Axis(
        "Retention of Yaad",
        "yaad",
        "l2 retention",
        (Cell("none", {"retention": "none"}, "worse: 50.63 for 53.98", 1),),
    ),
    Axis(
        "Huber branches of Yaad",
        "yaad",
        "threshold from the token",
        (
            Cell("fixed threshold", {"bias.data_dependent": False}, "worse: 52.19 for 53.98", 1),
            Cell("no l2 branch", {"bias": SIGN}, "worse: 52.86 for 53.98", 1),
            Cell("no l1 branch", {"bias": "l2"}, "worse: 53.04 for 53.98", 1),
        ),
    ),
    Axis(
        "Depth of Yaad's memory",
        "yaad",
        "depth 2",
        (
            Cell("depth 1", {"memory.depth": 1}, "worse: 51.57 for 53.98 (linear)", 1),
            Cell("depth 3", {"memory.depth": 3, "memory.expansion": 2}, "better (Titans)", -1),
        ),
    ),
    Axis("Chunk of Yaad", "yaad", "chunk 16", (_chunk(4), _chunk(64))),
    Axis(
        "p of Moneta",
        "moneta",
        "p = 3",
        (_p(1.5), _p(2), _p(2.5), _p(3.5), _p(4, ", 4 worst")),
    ),
    Axis(
        "Retention of Moneta",
        "moneta",
        "lq retention",
        (Cell("none", {"retention": "none"}, "not reported", 0),),
    ),
    Axis(
        "Retention of Memora",
        "memora",
        "KL retention",
        (Cell("none", {"retention": "none"}, "not reported", 0),),
    ),
)
PRESETS = tuple(dict.fromkeys(axis.preset for axis in AXES))
OWN = "preset"  # the cell that a grid is around
READ = "yaad"  # the preset with models that are read in other ways
READINGS = (
    Reading(OWN, "not written", SILENT, "not reported", 0),
    *(Reading("chunk 64", f"chunk {c}", {"chunk": c}, *STALE) for c in (4, 8, 16)),
)


def cells_of(preset: str) -> tuple[Cell, ...]:
    """The cells of a preset, axis by axis."""
    return tuple(cell for axis in AXES if axis.preset == preset for cell in axis.cells)
