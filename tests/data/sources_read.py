"""What tests of sources share: the texts of one, what it leaves out, and files of rows."""

import gzip
import json

import pyarrow
from pyarrow import parquet

from miras.data.text.sources import survey
from miras.data.text.splitting import read_documents


def texts(source, **kwargs):
    return [text for _, text in read_documents(survey(str(source), **kwargs).files)]


def reasons(source):
    return survey(str(source)).reading("it").left_out


def write_rows(path, rows):
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines))
    elif path.suffix == ".zst":
        path.write_bytes(pyarrow.compress(lines, codec="zstd", asbytes=True))
    else:
        path.write_bytes(lines)
