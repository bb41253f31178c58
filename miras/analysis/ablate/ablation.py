"""Trains a grid and writes its report. Heavy imports are inside the function, for `--help`."""

import contextlib
import os
from typing import TYPE_CHECKING

from miras.analysis.ablate.grid import AblationGrid
from miras.config import require

if TYPE_CHECKING:
    from rich.console import Console

    from miras.analysis.ablate.jobs import Outcomes
    from miras.analysis.ablate.ray_cluster import RayOptions
    from miras.analysis.ablate.results import GridResults


def ablate(
    grid: AblationGrid,
    out: str | os.PathLike[str],
    *,
    jobs: int | None = None,
    ray: "RayOptions | None" = None,
    console: "Console | None" = None,
) -> "GridResults":
    """Train every run of a grid and report the results, or resume the grid in a folder.

    Each run is trained in its own process; if one fails, the failure is recorded and the others
    continue. After each run `results.jsonl`, `table.csv`, `table.md` and `effects.csv` are written
    anew, and after the last `plot.png` and `curves.png`.

    Args:
        grid: from `make_grid`.
        out: its folder, on a disk or on an object store; created if missing.
        jobs: processes to run at once, >= 1; `processes.default_jobs()` if not given.
        ray: the cluster that runs them, and decides how many at once; this machine if not given.
        console: prints progress and tables; the standard output if not given.

    Raises:
        ConfigError: for jobs out of range, a folder of another grid or in use, a disk that is full
            or read-only, an object store that cannot be reached, or a cluster that cannot run a
            cell. Finished runs stay as they are.
    """
    from rich.console import Console

    from miras.analysis.ablate import files, processes, report
    from miras.analysis.ablate import jobs as training
    from miras.analysis.ablate.cell_costs import known_costs
    from miras.analysis.ablate.columns import print_table
    from miras.analysis.ablate.folder import GridFolder
    from miras.analysis.ablate.metric import metric_of
    from miras.analysis.ablate.progress import Display
    from miras.analysis.ablate.ray_cluster import connected, places
    from miras.analysis.ablate.ray_tasks import RayTasks
    from miras.analysis.ablate.results import summarise
    from miras.errors import ConfigError
    from miras.runtime.terminal import tolerant
    from miras.train.runs.lease import LeaseLostError

    jobs = processes.default_jobs() if jobs is None else jobs
    require(jobs >= 1, f"jobs={jobs} must be at least 1.")
    console = console or Console()
    folder = GridFolder(out)

    def results_of(outcomes: "Outcomes") -> "GridResults":
        """Costs take a second a cell, so that they are counted while the first runs train."""
        costs = [known_costs(cell.config) for cell in grid.cells] if outcomes else None
        return summarise(grid, outcomes, costs)

    def save(outcomes: "Outcomes") -> None:
        """Write the tables; a store that does not answer now is written to after the next run."""
        try:
            files.write_tables(folder, results_of(outcomes))
        except ConfigError as error:
            if not folder.remote or isinstance(error, LeaseLostError):
                raise
            _print_line(console, f"warning: the tables are not up to date: {error}")

    with contextlib.ExitStack() as stack:
        nodes = [] if ray is None else stack.enter_context(connected(ray))
        stack.enter_context(folder.opened(grid, shared=ray is not None))
        stack.enter_context(tolerant(console))
        if ray is None:
            executor, at_once = processes.LocalProcesses(folder, jobs), jobs
        else:
            executor = RayTasks(folder, ray, nodes)
            at_once = sum(places(node, ray) for node in nodes)
        done = len(training.finished(grid, folder))
        if done:
            _print_line(console, f"{done} of {len(grid.runs)} runs are already in {folder.path}.")
        with Display(console, metric_of(grid), len(grid.runs), done, at_once) as display:
            outcomes = training.train_all(
                grid,
                folder,
                executor,
                display,
                save,
            )
        results = results_of(outcomes)
        files.write_tables(folder, results)
        files.write_figures(folder, results, lambda reason: _print_line(console, reason))
        for table in report.tables(results):
            console.print()
            print_table(console, table)
        console.print()
        for line in report.all_notes(results):
            _print_line(console, line)
    return results


def _print_line(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
