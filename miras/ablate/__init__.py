"""Ablation: a grid of configs, each trained under several seeds, and what that says of each choice.

`grid` says which cells there are, `jobs` trains them in processes of their own (`worker`), `results`
has the statistics, `report` and `plot` tell them, `folder` is what lies on disk, `ablation` does it
all, and `command` is `miras ablate`.
"""

from miras.ablate.ablation import ablate
from miras.ablate.grid import Cell, Grid, Illegal, make_grid
from miras.ablate.results import Results

__all__ = ["Cell", "Grid", "Illegal", "Results", "ablate", "make_grid"]
