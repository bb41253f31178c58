"""The rows of JSON lines and Parquet files, one document per row.

`text_file` opens files. PyArrow reads Parquet in batches of rows.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from miras.data.text.text_file import TextFile, open_decompressed
from miras.errors import ConfigError

JSON_LINES = (".jsonl", ".ndjson")
"""Suffixes of JSON lines; a .json file is also read as such if its lines are objects."""

_ROWS_AT_ONCE = 256
_LISTED = 12  # fields that an error names


def rows(file: TextFile) -> Iterator[bytes]:
    """Yields the text of each row of a file of rows, in order; empty where a row has no text.

    Raises:
        ConfigError: a row is damaged, or has no such field or no text in it; the message names the
            file and the line or row.
    """
    if file.rows == "parquet":
        yield from _parquet_rows(file)
        return
    with file.open() as stream:
        for n, line in enumerate(stream, 1):
            if line.strip():
                yield _text_of(_parse(line, file, n), file, f"line {n}")


def lacks_field(file: TextFile) -> ConfigError | None:
    """The error for a file whose first row lacks the field; None if there is none to report.

    Raises:
        ConfigError: the file or its first row is damaged.
    """
    if file.rows == "parquet":
        with _parquet(file) as opened:
            names = opened.schema_arrow.names
        return None if file.field in names else _no_field(file, "it", names)
    with file.open() as stream:
        for n, line in enumerate(stream, 1):
            if line.strip():
                row = _parse(line, file, n)
                return None if file.field in row else _no_field(file, f"line {n}", row)
    return None


def is_json_lines(head: bytes, field: str) -> bool:
    """Whether a .json file starts with one object per line, not with a multi-line object."""
    lines = [line for line in head.splitlines(keepends=True) if line.strip()][:2]
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            found.append(None)
    if not found or not isinstance(found[0], dict):
        return False
    if len(lines) == 1:
        return field in found[0]
    # The second line may be longer than the head.
    return isinstance(found[1], dict) or (not lines[1].endswith(b"\n") and lines[1][:1] == b"{")


def _parse(line: bytes, file: TextFile, n: int) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        why = "too deeply nested" if isinstance(error, RecursionError) else error
        raise _damaged(file, f"line {n} is not valid JSON ({why})") from error
    if not isinstance(row, dict):
        raise _damaged(file, f"line {n} is {_kind(row)}, not an object with a text field")
    return row


def _text_of(row: dict[str, Any], file: TextFile, where: str) -> bytes:
    if file.field not in row:
        raise _no_field(file, where, row)
    text = row[file.field]
    if text is None:
        return b""
    if not isinstance(text, str):
        raise _no_text(file, where, _kind(text))
    # An unpaired surrogate, which is valid in JSON but not in UTF-8, becomes U+FFFD.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")


def _parquet_rows(file: TextFile) -> Iterator[bytes]:
    import pyarrow

    n = 0
    with _parquet(file) as opened:
        names = opened.schema_arrow.names
        if file.field not in names:
            raise _no_field(file, "it", names)
        kind = opened.schema_arrow.field(file.field).type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        if not _is_text(kind):
            raise _no_text(file, "it", f"values of type {kind}")
        try:
            for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[file.field]):
                for text in batch.column(0).to_pylist():
                    n += 1
                    yield text.encode("utf-8") if isinstance(text, str) else text or b""
        except Exception as error:
            raise _damaged(file, f"it is damaged after row {n} ({_one_line(error)})") from error


@contextlib.contextmanager
def _parquet(file: TextFile) -> Iterator[Any]:
    """A Parquet file, open."""
    from pyarrow import parquet

    assert file.path is not None
    with open_decompressed(file.path) as stream:
        try:
            opened = parquet.ParquetFile(stream)
            assert opened.schema_arrow is not None  # read now, so that damage is caught
        except Exception as error:  # for damaged files PyArrow raises various exceptions
            raise _damaged(
                file, f"it is not a complete Parquet file ({_one_line(error)})"
            ) from error
        yield opened


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    tests = (
        types.is_string, types.is_large_string, types.is_string_view,
        types.is_binary, types.is_large_binary, types.is_binary_view, types.is_null,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _no_field(file: TextFile, where: str, names: Any) -> ConfigError:
    names = [repr(name) for name in names]
    some = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return ConfigError(
        f"{_name(file)} has no field {file.field!r}, as {where} has the fields {some or 'none'}: "
        "choose the one that holds the text with data.field=NAME."
    )


def _damaged(file: TextFile, what: str, fix: str = "repair or remove it") -> ConfigError:
    return ConfigError(f"{_name(file)} cannot be read, as {what}: {fix}.")


def _no_text(file: TextFile, where: str, kind: object) -> ConfigError:
    what = f"{where} has {kind} in its field {file.field!r}, which must contain texts"
    return _damaged(file, what, "correct it, or choose another field with data.field=NAME")


def _name(file: TextFile) -> str:
    return repr(str(file.path or file.name))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list",
             str: "a text", dict: "an object"}  # fmt: skip
    return names.get(type(value), "null")
