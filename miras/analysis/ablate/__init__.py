"""Ablation: train a grid of configs under several seeds and estimate the effect of each choice.

`make_grid` builds the cells of a `grid`: `budget` matches their sizes, `rates` sweeps a rate in
each, and `held_out` gives all the same data. `jobs` trains them through an `executor`, such as
`processes` (each a `worker`, which writes an `outcome`). `results` computes statistics; `report`,
`notes`, `records` and the plots show them, `progress` shows what is running, `folder` defines the
files on disk, and `ablation` runs it all. `miras.config.sweep` defines the points of a grid.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.ablate.ablation import ablate
    from miras.analysis.ablate.grid import AblationGrid, GridCell, IllegalCell
    from miras.analysis.ablate.make_grid import grid_of, make_grid
    from miras.analysis.ablate.rates import parse_rates
    from miras.analysis.ablate.results import GridResults

__all__ = [
    "AblationGrid",
    "GridCell",
    "GridResults",
    "IllegalCell",
    "ablate",
    "grid_of",
    "make_grid",
    "parse_rates",
]

lazy.package(
    __name__,
    {
        ".ablation": ("ablate",),
        ".grid": ("GridCell", "AblationGrid", "IllegalCell"),
        ".make_grid": ("grid_of", "make_grid"),
        ".rates": ("parse_rates",),
        ".results": ("GridResults",),
    },
)
