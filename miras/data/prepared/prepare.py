"""Writes a prepared set: documents to packed rows in shards, in parallel processes.

A shard holds the rows of consecutive documents. Which documents those are depends on the source and
``shard_bytes`` alone, so any number of processes and machines writes the same files.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from etils import epath

from miras.data.config import DataConfig
from miras.data.prepared import layout
from miras.data.prepared.layout import Plan, Shard
from miras.data.prepared.write_shard import file_sha256, write_shard
from miras.data.text.corpus import open_documents
from miras.data.text.documents import SPLITS, DocumentSource
from miras.data.text.read_report import printable
from miras.data.tokenizers.built_in import BUILT_IN
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.data.tokenizers.tokenizer_file import tokenizer_file
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.files import is_leftover

SHARD_BYTES = 64 * 2**20
_SAMPLE = 256  # documents whose mean size is taken for that of all

Progress = Callable[[int, int], None]


class Prepared(NamedTuple):
    """What a call of `prepare` found or wrote.

    Attributes:
        folder: of the set.
        plan: of the set.
        shards: finished shards of the whole set, by split.
        kept: shards of this call that an earlier one had finished.
        finished: whether all shards are there, and with them the index.
    """

    folder: epath.Path
    plan: Plan
    shards: dict[str, list[Shard]]
    kept: int
    finished: bool


def prepare(
    config: DataConfig,
    out: str | os.PathLike[str],
    *,
    align: int,
    shard: tuple[int, int] = (0, 1),
    processes: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> Prepared:
    """Write the prepared set of a source of text, or what is missing of it.

    Both splits are written, by the documents that ``open_documents`` gives them. Each token is a
    target once. Shards that an earlier call finished are kept if their sha256 is the one that was
    written down, and are written again otherwise.

    Args:
        config: its source, tokenizer, sequence, field, validation and cache.
        out: folder of the set, local or on an object store.
        align: segments start at multiples of this; it divides ``config.sequence``.
        shard: (i, n): every n-th shard from the i-th on, for n machines that write to one folder.
            The last of them that ends writes the index.
        processes: to write shards in, >= 1; more than one need a ``__main__`` that can be imported.
        shard_bytes: bytes of text of a shard, about, > 0.
        progress: called with the number of finished shards and of all shards of this call.

    Raises:
        ConfigError: an argument is out of range, the source or the tokenizer cannot be used, or the
            folder holds a set of other data.
        OSError: the folder cannot be written.
    """
    _check(config, align, shard, processes, shard_bytes)
    folder = paths.open_path(out)
    documents = {split: open_documents(config, split) for split in SPLITS}
    plan = _plan(config, align, documents, shard_bytes)
    _begin(folder, plan, config)
    own = plan.shard_names()[shard[0] :: shard[1]]
    missing = [item for item in own if not _is_whole(folder, item[2])]
    kept, progress = len(own) - len(missing), progress or (lambda *_: None)
    progress(kept, len(own))
    jobs = [
        _ShardJob(_part(documents[s], n, plan.shards[s]), config, plan, name)
        for s, n, name in missing
    ]
    for done, _ in enumerate(_write_all(jobs, folder, processes), kept + 1):
        progress(done, len(own))
    shards = {s: _finished_shards(folder, plan, s) for s in SPLITS}
    finished = all(len(shards[s]) == plan.shards[s] for s in SPLITS)
    if finished:
        paths.write(folder / layout.INDEX, layout.index_json(plan, shards))
        _remove_leftovers(folder)
    return Prepared(folder, plan, shards, kept, finished)


def _check(
    config: DataConfig, align: int, shard: tuple[int, int], processes: int, shard_bytes: int
) -> None:
    if align < 1 or config.sequence % align:
        near = max(1, round(config.sequence / max(align, 1))) * max(align, 1)
        raise ConfigError(
            f"--align {align} does not divide --sequence {config.sequence}: use --sequence {near}, "
            "or another --align; it is the memory's chunk."
        )
    i, n = shard
    if not 0 <= i < n:
        raise ConfigError(
            f"--shard {i}/{n} names no part: give I/N with I from 0 to N - 1, as 0/4 to 3/4."
        )
    for name, value in (("--processes", processes), ("--shard-bytes", shard_bytes)):
        if value < 1:
            raise ConfigError(f"{name} {value} must be at least 1.")


def _plan(
    config: DataConfig, align: int, documents: dict[str, DocumentSource], shard_bytes: int
) -> Plan:
    tokenizer = make_tokenizer(config.tokenizer)
    own = f"tokenizer{pathlib.Path(config.tokenizer).suffix}"
    return Plan(
        source=printable(config.source),
        corpus=documents["train"].fingerprint,
        tokenizer=tokenizer.fingerprint,
        tokenizer_file=config.tokenizer if config.tokenizer in BUILT_IN else own,
        vocabulary=tokenizer.vocab_size,
        sequence=config.sequence,
        align=align,
        validation=config.validation,
        documents={split: len(found) for split, found in documents.items()},
        shards={split: _shard_count(found, shard_bytes) for split, found in documents.items()},
    )


def _shard_count(documents: DocumentSource, shard_bytes: int) -> int:
    """The number of shards of about `shard_bytes`, by the mean size of some documents."""
    count = len(documents)
    sample = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int))
    mean = sum(len(documents[n]) for n in sample.tolist()) / len(sample)
    return min(count, max(1, round(mean * count / shard_bytes)))


def _part(documents: DocumentSource, n: int, shards: int) -> DocumentSource:
    """The documents of the n-th of some shards."""
    ends = [k * len(documents) // shards for k in (n, n + 1)]
    return documents.select(np.arange(*ends))


def _begin(folder: epath.Path, plan: Plan, config: DataConfig) -> None:
    """Write the plan, or check that the folder holds the same one."""
    if not paths.is_remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = layout.read_plan(folder)
    if found is not None and found != plan:
        old, new = dataclasses.asdict(found), dataclasses.asdict(plan)
        changed = [f"{k} was {old[k]!r}, is {new[k]!r}" for k in new if old[k] != new[k]]
        raise ConfigError(
            f"{str(folder)!r} holds a prepared set of something else, as {', '.join(changed)}: "
            "give another --out, or remove that folder."
        )
    if plan.tokenizer_file not in BUILT_IN:
        content = tokenizer_file(config.tokenizer).read_bytes()
        paths.write(folder / plan.tokenizer_file, content)
    if found is None:
        if not paths.is_remote(folder):
            others = {path.name for path in folder.iterdir()} - {plan.tokenizer_file}
            if others:
                raise ConfigError(
                    f"{str(folder)!r} holds other files ({sorted(others)[0]!r}): give an empty or "
                    "a new folder as --out."
                )
        paths.write(folder / layout.PLAN, layout.plan_json(plan))


def _is_whole(folder: epath.Path, name: str) -> bool:
    """Whether a shard is finished and is as it was written."""
    with contextlib.suppress(OSError, ConfigError, TypeError):
        shard = layout.read_shard(folder, name)
        return shard is not None and file_sha256(folder / shard.file) == shard.sha256
    return False


def _finished_shards(folder: epath.Path, plan: Plan, split: str) -> list[Shard]:
    names = [name for s, _, name in plan.shard_names() if s == split]
    found = [layout.read_shard(folder, name) for name in names]
    return [shard for shard in found if shard is not None]


def _remove_leftovers(folder: epath.Path) -> None:
    """Remove the temporary files of processes that were killed, on a local disk."""
    if not paths.is_remote(folder):
        for path in folder.iterdir():
            if is_leftover(path.name):
                path.unlink(missing_ok=True)


class _ShardJob(NamedTuple):
    """A shard to write; it is sent to another process."""

    documents: DocumentSource
    config: DataConfig
    plan: Plan
    name: str

    def write(self, folder: str) -> None:
        write_shard(self.documents, self.config.tokenizer, self.plan, folder, self.name)


def _write_all(jobs: list[_ShardJob], folder: epath.Path, processes: int) -> Iterator[None]:
    """Write shards; yields after each."""
    if min(processes, len(jobs)) <= 1:
        for job in jobs:
            yield job.write(str(folder))
        return
    # Not forked: the readers of records have threads, which a forked process would wait for.
    context = multiprocessing.get_context("spawn")
    count = min(processes, len(jobs))
    with concurrent.futures.ProcessPoolExecutor(count, context, _start_worker) as pool:
        futures = [pool.submit(job.write, str(folder)) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise ConfigError(
                "a process that prepared a shard was killed, perhaps for lack of memory: repeat "
                "the command, which keeps the finished shards, with fewer --processes."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave SIGINT, which a terminal sends to all, to the parent, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
