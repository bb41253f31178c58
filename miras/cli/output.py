"""Prints lines and tables as they are: no wrapping, highlighting or markup."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_line(console: "Console", line: str) -> None:
    """Print a line of any length, literally."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def print_tables(*tables: "Table") -> None:
    """Print tables to the standard output."""
    from rich.console import Console

    for table in tables:
        Console().print(table)
