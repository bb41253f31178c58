"""Ablation: train a grid of configs under several seeds and estimate the effect of each choice.

`grid` builds the cells of the grid, `jobs` trains them through an `executor`, such as `processes`
(each a `worker`, which writes an `outcome`), `results` computes statistics, `records`, `report` and
`plot` write them, `progress` shows what is running, `folder` defines the files on disk, and
`ablation` runs it all.
`miras.config.sweep` defines the points of a grid.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.ablate.ablation import ablate
    from miras.analysis.ablate.grid import AblationGrid, GridCell, IllegalCell, make_grid
    from miras.analysis.ablate.results import GridResults

__all__ = ["AblationGrid", "GridCell", "GridResults", "IllegalCell", "ablate", "make_grid"]

lazy.package(
    __name__,
    {
        ".ablation": ("ablate",),
        ".grid": ("GridCell", "AblationGrid", "IllegalCell", "make_grid"),
        ".results": ("GridResults",),
    },
)
