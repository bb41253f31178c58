"""The labelled sequences of a source: a table, or a folder with a part for each split.

A folder has train and test, and may have validation (or dev, valid), each of which is

    train.csv                 a table with a sequence and a label in each row
    train/CLASS/*.txt         a folder per class with a file per sequence (GenomicsBenchmarks)
    train/CLASS.csv           a table of sequences or intervals per class
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from miras.data.labelled.example import Labelled
from miras.data.labelled.genome import Genome
from miras.data.labelled.table import is_table, read_table
from miras.data.text.read_report import ReadReport, printable, report
from miras.data.text.text_file import UNREADABLE, open_decompressed
from miras.errors import ConfigError
from miras.runtime.files import expand_home

_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}
_LAYOUT = (
    "give a CSV file, or a folder with train.csv and test.csv or with train/CLASS/*.txt and "
    "test/CLASS/*.txt"
)


class Columns(NamedTuple):
    """Where a table has its values.

    Attributes:
        sequence: the column of the sequence.
        label: the column of the label.
        genome: the FASTA file of intervals; None if there are none.
    """

    sequence: str = "sequence"
    label: str = "label"
    genome: Genome | None = None


def read_labelled(source: str, columns: Columns) -> dict[str, list[Labelled]]:
    """The labelled sequences of a source by split; of a table alone, all are of "train".

    Raises:
        ConfigError: the source does not exist, has another layout, or is empty.
    """
    path = expand_home(source)
    if path.is_file() and is_table(path):
        parts = {"train": path}
    elif path.is_dir():
        parts = _parts(path)
    else:
        found = "is no table" if path.exists() else "does not exist"
        raise ConfigError(f"data source {source!r} {found}: {_LAYOUT}.")
    if "train" not in parts:
        raise ConfigError(f"data source {source!r} has no train or train.csv: {_LAYOUT}.")
    found = {split: list(_read_part(part, columns)) for split, part in parts.items()}
    for split, examples in found.items():
        if not examples:
            raise ConfigError(f"{str(parts[split])!r} has no sequences: {_LAYOUT}.")
    total = sum(map(len, found.values()))
    report(ReadReport(printable(source), total, unit="sequence"))
    return found


def _parts(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """The file or folder of each split."""
    parts: dict[str, pathlib.Path] = {}
    for split, names in _NAMES.items():
        for path in sorted(folder.iterdir()):
            fits = path.is_dir() or is_table(path)
            if path.name.split(".")[0] in names and fits:
                parts.setdefault(split, path)
    return parts


def _read_part(path: pathlib.Path, columns: Columns) -> Iterator[Labelled]:
    if path.is_file():
        yield from read_table(path, columns.sequence, columns.label, columns.genome)
        return
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _files(entry)
        elif is_table(entry):
            yield from read_table(entry, columns.sequence, None, columns.genome)


def _files(folder: pathlib.Path) -> Iterator[Labelled]:
    """A file per sequence."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            with open_decompressed(path) as stream:
                text = b"".join(stream.read().split())
        except UNREADABLE as error:
            raise ConfigError(f"{str(path)!r} cannot be read ({error}): repair it.") from error
        if text:
            yield Labelled(text, folder.name)
