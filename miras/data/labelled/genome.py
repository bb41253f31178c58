"""Intervals of a genome: random access to a FASTA file through pyfaidx."""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from miras.data.tokenizers.nucleotide import NucleotideTokenizer, complement
from miras.errors import ConfigError
from miras.runtime.files import expand_home

INTERVAL = ("region", "start", "end")
"""Columns of an interval; `chrom` may stand for the region, and a `strand` may be added."""


def interval_columns(names: list[str]) -> dict[str, str] | None:
    """The column of each part of an interval; None if a table has no intervals."""
    found = {part: part for part in (*INTERVAL, "strand") if part in names}
    if "region" not in found and "chrom" in names:
        found["region"] = "chrom"
    return found if set(INTERVAL) <= found.keys() else None


class Genome:
    """A FASTA file, of which intervals are read without reading the rest.

    pyfaidx indexes the file once; the index is in the cache folder. A file that is compressed must
    be so in blocks, by `bgzip`.

    Args:
        path: of the file.
        cache: folder of the index.

    Raises:
        ConfigError: pyfaidx is not installed, or the file cannot be read.
    """

    def __init__(self, path: str, cache: pathlib.Path) -> None:
        try:
            import pyfaidx
        except ImportError as error:
            raise ConfigError(
                "task.genome needs the package 'pyfaidx': pip install 'miras-jax[genomics]'."
            ) from error
        self._path, file = path, expand_home(path).absolute()
        try:
            stat = file.stat()
            name = f"{file} {stat.st_size} {stat.st_mtime_ns}"
            folder = cache / "genomes"
            folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
            index = folder / f"{digest}.fai"
            self._fasta: Any = pyfaidx.Fasta(str(file), indexname=str(index), rebuild=False)
        except (OSError, ValueError, pyfaidx.FastaIndexingError, ImportError) as error:
            raise ConfigError(
                f"genome {path!r} cannot be read ({error}): give a FASTA file, plain or compressed "
                "by bgzip."
            ) from error

    def read(self, row: dict[str, str | None], columns: dict[str, str], where: str) -> bytes:
        """The sequence of an interval; of the other strand if its strand is "-".

        Args:
            row: of a table: a region, and a start and an end, counted from 0, the end excluded.
            columns: see `interval_columns`.
            where: of the row, for errors.

        Raises:
            ConfigError: the genome has no such interval.
        """
        region = row[columns["region"]] or ""
        first, last = (_number(row, columns[part], where) for part in ("start", "end"))
        if region not in self._fasta:
            raise ConfigError(f"{where}: the genome {self._path!r} has no region {region!r}.")
        length = len(self._fasta[region])
        if not 0 <= first < last <= length:
            raise ConfigError(
                f"{where}: the interval [{first}, {last}) is not within region {region!r}, which "
                f"has {length} nucleotides."
            )
        found = str(self._fasta[region][first:last]).encode()
        strand = row[columns["strand"]] if "strand" in columns else "+"
        return reverse_complement(found) if strand == "-" else found


def reverse_complement(sequence: bytes) -> bytes:
    """The sequence of the other strand, in upper case."""
    tokenizer = NucleotideTokenizer()
    return tokenizer.decode_bytes(complement(np.flip(tokenizer.encode(sequence))))


def _number(row: dict[str, str | None], name: str, where: str) -> int:
    text = (row[name] or "").strip()
    if not text.isdecimal():
        raise ConfigError(f"{where}: {name}={text!r} is no whole number.")
    return int(text)
