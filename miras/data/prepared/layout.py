"""The files of a prepared set, and what its index says.

    plan.json                            what the set is made of; written first
    tokenizer.model or tokenizer.json    a copy of the tokenizer, unless it is bytes
    train-00000-of-00008.array_record    the rows of some documents, one record each
    train-00000-of-00008.json            its counts and its sha256; written after it
    index.json                           the plan and all counts; written when all shards are there

Every file is written completely or not at all, so a set without an index is unfinished, and a shard
without its counts is none. The content of each file depends on the plan alone, so machines that
write the same set need no lock.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from etils import epath

from miras.data.text.documents import SPLITS
from miras.errors import ConfigError
from miras.runtime.paths import is_remote, open_path, read

FORMAT = "miras prepared rows 1"
PLAN, INDEX = "plan.json", "index.json"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a prepared set is made of.

    Attributes:
        source: as it was given.
        corpus: the fingerprint of all documents.
        tokenizer: its fingerprint.
        tokenizer_file: name of its copy in the set; or that of a built-in tokenizer.
        vocabulary: number of its ids.
        sequence: tokens per row, a multiple of ``align``.
        align: segments start at multiples of it.
        validation: fraction of the documents held out, as in ``DataConfig``.
        documents: number of documents by split.
        shards: number of shards by split.
    """

    source: str
    corpus: str
    tokenizer: str
    tokenizer_file: str
    vocabulary: int
    sequence: int
    align: int
    validation: float
    documents: dict[str, int]
    shards: dict[str, int]

    def shard_names(self) -> list[tuple[str, int, str]]:
        """The split, the number and the file name without suffix of each shard."""
        return [
            (split, n, f"{split}-{n:05}-of-{self.shards[split]:05}")
            for split in SPLITS
            for n in range(self.shards[split])
        ]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of rows.

    Attributes:
        name: of the file, without suffix.
        rows: number of records.
        tokens: number of targets.
        bytes: of text that the targets stand for.
        size: of the file in bytes.
        sha256: of the file.
    """

    name: str
    rows: int
    tokens: int
    bytes: int
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.name}.array_record"


@dataclasses.dataclass(frozen=True)
class Index:
    """A finished set: its plan, the shards of each split, and its fingerprint."""

    plan: Plan
    shards: dict[str, list[Shard]]
    fingerprint: str


def is_prepared(source: str) -> bool:
    """Whether a source is the folder of a prepared set, finished or not."""
    if source == "stdlib" or source.startswith("tfds:"):
        return False
    try:
        folder = open_path(source)
        if not is_remote(source) and not folder.is_dir():
            return False
    except (ConfigError, OSError, ValueError):  # the reader of text tells what is wrong with it
        return False
    return _read(folder / PLAN) is not None


def read_plan(folder: epath.Path) -> Plan | None:
    """The plan of a set; None if the folder holds none."""
    found = _read(folder / PLAN)
    return None if found is None else Plan(**found["plan"])


def read_shard(folder: epath.Path, name: str) -> Shard | None:
    """The counts of a finished shard; None if it is not finished."""
    found = _read(folder / f"{name}.json")
    return None if found is None else Shard(**found["shard"])


def read_index(folder: epath.Path) -> Index:
    """The index of a finished set.

    Raises:
        ConfigError: the set is unfinished, or its index is damaged.
    """
    found = _read(folder / INDEX)
    if found is None:
        plan = read_plan(folder)
        if plan is None:
            raise ConfigError(f"{str(folder)!r} holds no prepared set: see `miras prepare --help`.")
        names = [name for _, _, name in plan.shard_names()]
        done = sum(read_shard(folder, name) is not None for name in names)
        raise ConfigError(
            f"the prepared set in {str(folder)!r} is unfinished ({done} of {len(names)} shards): "
            "repeat the `miras prepare` that writes it, which continues there."
        )
    try:
        plan = Plan(**found["plan"])
        shards = {s: [Shard(**shard) for shard in found["shards"][s]] for s in SPLITS}
        if found["sha256"] != fingerprint(plan, shards):
            raise ValueError("its content differs from its checksum")
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / INDEX, error) from error
    return Index(plan, shards, found["sha256"])


def fingerprint(plan: Plan, shards: dict[str, list[Shard]]) -> str:
    """The sha256 of the plan and of all shards, which identifies the content of a set."""
    return hashlib.sha256(json.dumps(_body(plan, shards), sort_keys=True).encode()).hexdigest()


def plan_json(plan: Plan) -> str:
    """The text of `plan.json`."""
    return _json({"plan": dataclasses.asdict(plan)})


def shard_json(shard: Shard) -> str:
    """The text of a shard's counts."""
    return _json({"shard": dataclasses.asdict(shard)})


def index_json(plan: Plan, shards: dict[str, list[Shard]]) -> str:
    """The text of `index.json`."""
    return _json({**_body(plan, shards), "sha256": fingerprint(plan, shards)})


def _body(plan: Plan, shards: dict[str, list[Shard]]) -> dict[str, Any]:
    listed = {split: [dataclasses.asdict(shard) for shard in shards[split]] for split in SPLITS}
    return {"plan": dataclasses.asdict(plan), "shards": listed}


def _json(body: dict[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **body}, indent=1) + "\n"


def _read(path: epath.Path) -> dict[str, Any] | None:
    """A JSON file of this format; None if it does not exist or is of something else."""
    try:
        text = read(path).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        if FORMAT not in text:
            return None
        raise _damaged(path, error) from error
    if not isinstance(found, dict) or "format" not in found:
        return None
    if found["format"] != FORMAT:
        raise ConfigError(
            f"{path} has the format {str(found['format'])[:40]!r}, not {FORMAT!r}: prepare the set "
            "again in another folder."
        )
    return found


def _damaged(path: epath.Path, why: object) -> ConfigError:
    return ConfigError(
        f"{path} is damaged ({why}): remove it and repeat the `miras prepare` that wrote it."
    )
