"""Trains a grid and writes its report. Heavy imports are inside the function, for `--help`."""

import os
from typing import TYPE_CHECKING

from miras.analysis.ablate.grid import AblationGrid
from miras.config import require

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.ablate.results import GridResults


def ablate(
    grid: AblationGrid,
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    console: "Console | None" = None,
) -> "GridResults":
    """Train every run of a grid and report the results, or resume the grid in a folder.

    Each run is trained in its own process; if one fails, the failure is recorded and the others
    continue. The folder then holds `results.jsonl`, `table.csv`, `table.md`, `effects.csv` and
    `plot.png`.

    Args:
        grid: from `make_grid`.
        out: its folder; created if missing.
        jobs: processes to run at once, >= 1; `processes.default_jobs()` if not given.
        console: prints progress and tables; the standard output if not given.

    Raises:
        ConfigError: for jobs out of range, a folder of another grid or in use, or a disk that is
            full or read-only. Finished runs stay as they are.
    """
    from rich.console import Console

    from miras.analysis.ablate import jobs as training
    from miras.analysis.ablate import processes, records, report
    from miras.analysis.ablate.folder import GridFolder
    from miras.analysis.ablate.metric import metric_of
    from miras.analysis.ablate.plot import plot
    from miras.analysis.ablate.progress import Display
    from miras.analysis.ablate.results import summarise
    from miras.runtime.figures import write_figure
    from miras.runtime.files import write_atomically
    from miras.runtime.terminal import tolerant

    jobs = processes.default_jobs() if jobs is None else jobs
    require(jobs >= 1, f"jobs={jobs} must be at least 1.")
    console = console or Console()
    folder = GridFolder(out)
    with folder.opened(grid), tolerant(console):
        done = len(training.finished(grid, folder))
        if done:
            _print_line(console, f"{done} of {len(grid.runs)} runs are already in {folder.path}.")
        with Display(console, metric_of(grid), len(grid.runs), done, jobs) as display:
            outcomes = training.train_all(
                grid,
                folder,
                processes.LocalProcesses(folder, jobs),
                display,
                lambda outcomes: write_atomically(folder.results, records.jsonl(grid, outcomes)),
            )
        results = summarise(grid, outcomes)
        write_atomically(folder.table, records.table_csv(results))
        write_atomically(folder.effects, records.effects_csv(results))
        write_atomically(folder.markdown, report.markdown(results))
        write_figure(
            folder.plot, lambda: plot(results), lambda reason: _print_line(console, reason)
        )
        for table in report.tables(results):
            console.print()
            console.print(table)
        console.print()
        for line in report.notes(results):
            _print_line(console, line)
    return results


def _print_line(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
