"""A grid from its first run to its report.

What trains and draws is imported when it is called, so that a command's `--help` stays quick.
"""

import os
from typing import TYPE_CHECKING

from miras.analysis.ablate.grid import Grid
from miras.config import require

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.ablate.results import Results


def ablate(
    grid: Grid,
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    console: "Console | None" = None,
) -> "Results":
    """Train every run of a grid and report on it, or go on where the grid in a folder stopped.

    Runs go to processes of their own; one that fails is recorded and the others go on. The folder
    then holds `results.jsonl`, `table.csv`, `table.md`, `effects.csv` and `plot.png`.

    Args:
        grid: as `make_grid` makes it.
        out: its folder; made if need be.
        jobs: processes at once, >= 1; `jobs.default_jobs()` if not given.
        console: where progress and tables are told; the standard output if not given.

    Raises:
        ConfigError: for jobs out of range, a folder of another grid or in use, or a disk that is
            full or read-only. Runs already trained stay as they are.
    """
    from rich.console import Console

    from miras.analysis.ablate import jobs as processes
    from miras.analysis.ablate import records, report
    from miras.analysis.ablate.folder import GridFolder
    from miras.analysis.ablate.plot import plot
    from miras.analysis.ablate.progress import Display
    from miras.analysis.ablate.results import conclude
    from miras.analysis.ablate.score import score_of
    from miras.runtime.figures import write_picture
    from miras.runtime.files import write_whole
    from miras.runtime.terminal import tolerant

    jobs = processes.default_jobs() if jobs is None else jobs
    require(jobs >= 1, f"jobs={jobs} must be at least 1.")
    console = console or Console()
    folder = GridFolder(out)
    with folder.opened(grid), tolerant(console):
        done = len(processes.finished(grid, folder))
        if done:
            _say(console, f"{done} of {len(grid.runs)} runs are in {folder.path} already.")
        with Display(console, score_of(grid), len(grid.runs), done, jobs) as display:
            outcomes = processes.train_all(
                grid,
                folder,
                jobs,
                display,
                lambda outcomes: write_whole(folder.results, records.jsonl(grid, outcomes)),
            )
        results = conclude(grid, outcomes)
        write_whole(folder.table, records.table_csv(results))
        write_whole(folder.effects, records.effects_csv(results))
        write_whole(folder.markdown, report.markdown(results))
        write_picture(folder.plot, lambda: plot(results), lambda reason: _say(console, reason))
        for table in report.tables(results):
            console.print()
            console.print(table)
        console.print()
        for line in report.notes(results):
            _say(console, line)
    return results


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
