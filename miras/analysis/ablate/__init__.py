"""Ablation: a grid of configs, each trained under several seeds, and what each choice does.

`grid` says which cells there are, `jobs` trains them in processes of their own (`worker`, which
leaves an `outcome`), `results` has the statistics, `records`, `report` and `plot` tell them, and
`progress` what goes on; `folder` is what lies on disk, `ablation` does it all, and `command` is
`miras ablate`. What a point of a grid is stands in `miras.config.sweep`.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.ablate.ablation import ablate
    from miras.analysis.ablate.grid import Cell, Grid, Illegal, make_grid
    from miras.analysis.ablate.results import Results

__all__ = ["Cell", "Grid", "Illegal", "Results", "ablate", "make_grid"]

lazy.package(
    __name__,
    {
        ".ablation": ("ablate",),
        ".grid": ("Cell", "Grid", "Illegal", "make_grid"),
        ".results": ("Results",),
    },
)
