"""Reads the items of the task files in this folder from a folder of JSON lines.

lm-eval passes the folder as `data_dir`: `miras eval RUN --lm-eval NAME --data DIR`, or its own
command with `--metadata '{"data_dir": "DIR"}'`.
"""

import glob
import json
import os
from typing import Any

import datasets


def read(data_dir: str | None = None, file: str = "", **_: Any) -> dict[str, datasets.Dataset]:
    """The split `validation`: one item per line of the only file `FILE*.jsonl` in the folder.

    Args:
        data_dir: the folder, as the user names it.
        file: how the file's name begins, from the task file.

    Raises:
        FileNotFoundError: no folder is named, or it has no such file, or several.
    """
    if data_dir is None:
        raise FileNotFoundError(f"no folder with {file}*.jsonl is named: give it with --data")
    found = sorted(glob.glob(os.path.join(glob.escape(data_dir), f"{file}*.jsonl")))
    if len(found) != 1:
        raise FileNotFoundError(f"{data_dir} has {len(found)} files {file}*.jsonl, not one")
    with open(found[0], encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines if line.strip()]
    return {"validation": datasets.Dataset.from_list(items)}
