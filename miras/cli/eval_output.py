"""What the forms of `miras eval` share: a progress bar, and the files of results."""

import pathlib
from typing import TYPE_CHECKING

from miras.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


def write_results(path: pathlib.Path, text: str) -> None:
    """Write the text of results to a file, and create its folder.

    Raises:
        ConfigError: it cannot be written.
    """
    from miras.runtime.files import write_atomically
    from miras.train.runs.run_folder import cannot_write

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(cannot_write(path.parent, error)) from error


class Bar:
    """A progress bar; hidden unless the output is a terminal.

    Args:
        console: to print on.
        total: what `advance` adds up to; None if it is not known.
        unit: what `advance` counts, shown if the total is not known.
    """

    def __init__(self, console: "Console", total: int | None, unit: str = "tokens"):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        known = TextColumn("{task.percentage:3.0f} %  eta"), TimeRemainingColumn()
        counted = (TextColumn("{task.completed:,.0f} " + unit),)
        self._progress = Progress(
            TextColumn("reading"),
            BarColumn(bar_width=None),
            *(counted if total is None else known),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("reading", total=total)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        """Add tokens or requests to those done."""
        self._progress.advance(self._task, count)
