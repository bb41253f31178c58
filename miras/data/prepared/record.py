"""The bytes of a packed row: its segments, the tokens and the bytes that each target stands for.

    uint16 bytes of a token (2 or 4), uint16 bytes of a length (1 or 4), uint32 segments S
    uint32 [S] starts, uint32 [S] targets n_s of each segment
    tokens [sum(n_s + 1)], lengths [sum(n_s)]; uint16 or uint32, and uint8 or float32

The tokens of a segment are its inputs and its last target. All numbers are little-endian.
"""

from __future__ import annotations

import struct

import numpy as np

from miras.data.rows import Batch

_HEADER = struct.Struct("<HHI")
_TOKENS = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
_LENGTHS = {1: np.dtype("<u1"), 4: np.dtype("<f4")}


def encode(batch: Batch, row: int) -> bytes:
    """The record of a row of a batch."""
    mask, segments = batch["mask"][row], batch["segment_ids"][row]
    ids, starts, counts = np.unique(segments[mask], return_index=True, return_counts=True)
    starts = np.flatnonzero(mask)[starts]
    inputs, targets = batch["inputs"][row], batch["targets"][row]
    tokens = np.concatenate(
        [np.append(inputs[a : a + n], targets[a + n - 1]) for a, n in zip(starts, counts)]
    )
    lengths = batch["target_bytes"][row][mask]
    small = bool(np.all(lengths == np.floor(lengths)) and lengths.max() < 256)
    token_type = _TOKENS[2 if tokens.max() < 2**16 else 4]
    length_type = _LENGTHS[1 if small else 4]
    return b"".join(
        [
            _HEADER.pack(token_type.itemsize, length_type.itemsize, len(ids)),
            starts.astype("<u4").tobytes(),
            counts.astype("<u4").tobytes(),
            tokens.astype(token_type).tobytes(),
            lengths.astype(length_type).tobytes(),
        ]
    )


def decode(record: bytes, align: int, batch: Batch, row: int) -> None:
    """Write the row of a record to an empty row of a batch.

    Raises:
        ValueError: the record is not one of a row of this length.
    """
    sequence = batch["inputs"].shape[1]
    try:
        token_size, length_size, count = _HEADER.unpack_from(record)
        token_type, length_type = _TOKENS[token_size], _LENGTHS[length_size]
        starts = np.frombuffer(record, "<u4", count, _HEADER.size)
        counts = np.frombuffer(record, "<u4", count, _HEADER.size + 4 * count)
        total = int(counts.sum())
        offset = _HEADER.size + 8 * count
        tokens = np.frombuffer(record, token_type, total + count, offset)
        offset += tokens.nbytes
        lengths = np.frombuffer(record, length_type, total, offset)
    except (struct.error, KeyError) as error:
        raise ValueError("a record is not a row") from error
    if offset + lengths.nbytes != len(record):
        raise ValueError("a record is not a row")
    read = 0
    for n, (start, size) in enumerate(zip(starts.tolist(), counts.tolist())):
        end = start + size
        if end > sequence or start % align:
            raise ValueError(f"a segment at {start} of {size} tokens is not in a row of {sequence}")
        part = tokens[read + n : read + n + size + 1]
        batch["inputs"][row, start:end] = part[:-1]
        batch["targets"][row, start:end] = part[1:]
        batch["target_bytes"][row, start:end] = lengths[read : read + size]
        batch["mask"][row, start:end] = True
        batch["segment_ids"][row, start : -(-end // align) * align] = n + 1
        read += size
