"""Tables of labelled sequences: CSV and TSV files with a header, plain or compressed."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Iterator

from miras.data.labelled.example import Labelled
from miras.data.labelled.genome import INTERVAL, Genome, interval_columns
from miras.data.text.text_file import UNREADABLE, compression, open_decompressed
from miras.errors import ConfigError

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def is_table(path: pathlib.Path) -> bool:
    """Whether the name of a file is that of a CSV or TSV file."""
    return _suffix(path) in (".csv", ".tsv")


def read_table(
    path: pathlib.Path, sequence: str, label: str | None, genome: Genome | None
) -> Iterator[Labelled]:
    """Yields the labelled sequences of a table.

    Args:
        path: of the table.
        sequence: the column of the sequence. A table without it may have intervals of `genome`.
        label: the column of the label; None if the whole table is of one class, whose name is that
            of the file.
        genome: where intervals are read.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or has a row without a value.
    """
    try:
        with open_decompressed(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            reader = csv.DictReader(text, delimiter=_DELIMITERS[_suffix(path)])
            names = list(reader.fieldnames or ())
            intervals = None if sequence in names else interval_columns(names)
            _check_columns(path, names, sequence, label, intervals is not None)
            for row in reader:
                where = f"line {reader.line_num} of {str(path)!r}"
                if intervals is None:
                    found = _value(row, sequence, where).encode()
                elif genome is None:
                    raise ConfigError(
                        f"{str(path)!r} has intervals ({', '.join(INTERVAL)}) and no sequences: "
                        "name the FASTA file of their genome with task.genome=FILE."
                    )
                else:
                    found = genome.read(row, intervals, where)
                name = class_of(path) if label is None else _value(row, label, where)
                yield Labelled(found, name)
    except (*UNREADABLE, csv.Error) as error:
        raise ConfigError(
            f"{str(path)!r} cannot be read as a table ({error}): give a CSV or TSV file in UTF-8 "
            "with a header."
        ) from error


def class_of(path: pathlib.Path) -> str:
    """The name of a file without its suffixes."""
    name = path.name
    return name[: -len("".join(path.suffixes))] if path.suffixes else name


def _suffix(path: pathlib.Path) -> str:
    path = path.with_suffix("") if compression(path) else path
    return path.suffix.lower()


def _check_columns(
    path: pathlib.Path, names: list[str], sequence: str, label: str | None, intervals: bool
) -> None:
    wanted = [] if intervals else [("sequence", sequence)]
    for field, name in [*wanted, *([] if label is None else [("label", label)])]:
        if name not in names:
            some = ", ".join(map(repr, names)) or "none"
            raise ConfigError(
                f"{str(path)!r} has no column {name!r}, only {some}: choose the one that holds the "
                f"{field} with task.{field}_column=NAME."
            )


def _value(row: dict[str, str | None], name: str, where: str) -> str:
    value = (row[name] or "").strip()
    if not value:
        raise ConfigError(f"{where} has no {name!r}: complete or remove it.")
    return value
