"""Writes the results of a grid into its folder."""

from collections.abc import Callable

from miras.analysis.ablate import records, report
from miras.analysis.ablate.curves_plot import plot_curves
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.plot import plot
from miras.analysis.ablate.rates_report import plot_rates, rates_csv
from miras.analysis.ablate.results import GridResults
from miras.runtime.figures import write_figure
from miras.runtime.paths import write


def write_tables(folder: GridFolder, results: GridResults) -> None:
    """Write the lines of runs and the tables, also while runs are missing.

    Raises:
        ConfigError: another process has taken over the folder, or its object store cannot be
            reached.
    """
    folder.check_writer()
    write(folder.results, records.jsonl(*results.all_runs))
    write(folder.table, records.table_csv(results))
    write(folder.effects, records.effects_csv(results))
    write(folder.markdown, report.markdown(results))
    if results.choices:
        write(folder.rates, rates_csv(results))


def write_figures(folder: GridFolder, results: GridResults, warn: Callable[[str], object]) -> None:
    """Draw the figures; one that cannot be drawn is a warning."""
    write_figure(folder.plot, lambda: plot(results), warn)
    if any(len(outcome.curve) > 1 for outcome in results.outcomes.values()):
        write_figure(folder.curves, lambda: plot_curves(results), warn)
    if any(choice.best is not None for choice in results.choices):
        write_figure(folder.rates_plot, lambda: plot_rates(results), warn)
