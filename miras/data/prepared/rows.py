"""The rows of a prepared set as a stream of rows."""

from __future__ import annotations

from typing import Any

import grain

from miras.data.config import DataConfig
from miras.data.prepared.layout import Plan, read_index
from miras.data.prepared.record import decode
from miras.data.prepared.shards import ShardedRecords
from miras.data.rows import Batch, empty_batch
from miras.data.text.read_report import ReadReport, printable, report
from miras.data.tokenizers.built_in import BUILT_IN
from miras.data.tokenizers.make_tokenizer import make_tokenizer
from miras.errors import ConfigError
from miras.runtime.paths import open_path


def prepared_rows(
    config: DataConfig, split: str, align: int, epochs: int | None, shuffle: bool
) -> tuple[PreparedRows, dict[str, Any]]:
    """The rows of the prepared set ``config.source``, and the identity of the data.

    Rows may be shorter than those that were prepared: each of these is then cut into several.

    Raises:
        ConfigError: the set is unfinished or damaged, the split is empty, or the tokenizer, the
            sequence or ``align`` does not suit the set.
    """
    folder = open_path(config.source)
    index = read_index(folder)
    plan, shards = index.plan, index.shards[split]
    _check(plan, config, align)
    report(
        ReadReport(
            printable(config.source),
            sum(shard.rows for shards in index.shards.values() for shard in shards),
            unit="prepared row",
            digest=index.fingerprint,
        )
    )
    records = ShardedRecords(folder, shards, config.cache_dir / "prepared_copies")
    if len(records) == 0:
        raise ConfigError(
            f"the {split} split of the prepared set {config.source!r} is empty: prepare more text."
        )
    parts = plan.sequence // config.sequence
    order = grain.MapDataset.range(len(records) * parts)
    if shuffle:
        order = order.shuffle(seed=config.order_seed(split))
    identity = {
        "prepared": index.fingerprint,
        "split": split,
        "sequence": config.sequence,
        "seed": config.order_seed(split) if shuffle else None,
        "epochs": epochs,
    }
    return PreparedRows(records, order.repeat(epochs), plan, parts), identity


class PreparedRows:
    """The stream of the rows of a prepared set (`rows.RowStream`); skipped rows are not read.

    Args:
        records: random access to the prepared rows.
        order: numbers of rows, over all epochs.
        plan: of the set.
        parts: rows that are made of a prepared row; it divides ``plan.sequence``.
    """

    def __init__(self, records: ShardedRecords, order: Any, plan: Plan, parts: int) -> None:
        self._records, self._order, self._plan, self._parts = records, order, plan, parts
        self._row = 0

    def fill(self, batch: Batch, place: int | None) -> bool:
        """Advance by one row; as in ``RowStream``."""
        if self._row >= len(self._order):
            return False
        if place is not None:
            self._read(int(self._order[self._row]), batch, place)
        self._row += 1
        return True

    def _read(self, number: int, batch: Batch, place: int) -> None:
        record, part = divmod(number, self._parts)
        whole = empty_batch(1, self._plan.sequence)
        content = self._records[record]
        try:
            decode(content, self._plan.align, whole, 0)
        except ValueError as error:
            raise ConfigError(
                f"row {record} of a prepared set is damaged ({error}): prepare the set again."
            ) from error
        size = self._plan.sequence // self._parts
        for name, array in whole.items():
            batch[name][place] = array[0, part * size : (part + 1) * size]
        segments = batch["segment_ids"][place]
        segments[segments > 0] -= max(segments[0], 1) - 1  # each row counts from 1

    def get_state(self) -> dict[str, Any]:
        """Returns the position as plain JSON values."""
        return {"row": self._row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a position from ``get_state``."""
        self._row = int(state["row"])


def _check(plan: Plan, config: DataConfig, align: int) -> None:
    source = config.source
    tokenizer = make_tokenizer(config.tokenizer)
    if tokenizer.fingerprint != plan.tokenizer:
        name = plan.tokenizer_file
        fix = name if name in BUILT_IN else open_path(source) / name
        raise ConfigError(
            f"the prepared set {source!r} was made with another tokenizer than "
            f"data.tokenizer={config.tokenizer!r}: use data.tokenizer={fix}, or prepare the set "
            "again."
        )
    legal = [n for n in range(plan.align, plan.sequence + 1, plan.align) if plan.sequence % n == 0]
    if plan.align % align:
        chunks = [n for n in range(1, plan.align + 1) if plan.align % n == 0]
        raise ConfigError(
            f"segments of the prepared set {source!r} start at multiples of {plan.align}, and not "
            f"of align={align} (the memory's chunk): use a chunk of {_listed(chunks)}, or prepare "
            f"the set again with --align {align}."
        )
    if config.sequence not in legal:
        raise ConfigError(
            f"data.sequence={config.sequence} does not suit the prepared set {source!r}, whose "
            f"rows have {plan.sequence} tokens: use {_listed(legal[::-1])}, or prepare the set "
            f"again with --sequence {config.sequence}."
        )


def _listed(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
