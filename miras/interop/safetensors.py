"""Reading and writing safetensors files, in NumPy alone.

A file is the length of a JSON header (8 bytes, little endian), the header, which has the dtype, the
shape and the place of each tensor, and the tensors in C order.
https://huggingface.co/docs/safetensors
"""

import json
import math
import pathlib
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from miras.errors import ConfigError

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, as views of the file in memory.

    Raises:
        ConfigError: it is no safetensors file, or is truncated.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header has {length} bytes")
            header = json.loads(file.read(length))
        content = np.memmap(path, np.uint8, "r", offset=8 + length) if _size(header) else b""
        return {
            name: _tensor(content, name, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ConfigError(
            f"{path} cannot be read as safetensors ({error}): download it again."
        ) from error


def read_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint: of `model.safetensors`, or of the files that an index names.

    Raises:
        ConfigError: the folder has neither, or a file cannot be read.
    """
    if (folder / SINGLE).is_file():
        return read(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        raise ConfigError(
            f"{folder} has neither {SINGLE} nor {INDEX}: give the folder of a checkpoint in "
            "safetensors; `model.save_pretrained(DIR)` of transformers writes one."
        )
    try:
        files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{index} cannot be read ({error}): download it again.") from error
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        tensors |= read(folder / pathlib.PurePath(name).name)
    return tensors


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors to a file, which Hugging Face libraries read as those of PyTorch."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    arrays, end = [], 0
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor)
        shape, start, end = list(tensor.shape), end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": shape, "data_offsets": [start, end]}
        arrays.append(array)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays:
            file.write(array.tobytes())


def _size(header: Mapping[str, Any]) -> int:
    return max((e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"), default=0)


def _tensor(content: Any, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has dtype {entry['dtype']}; known are {', '.join(_DTYPES)}")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if end - start != math.prod(shape) * dtype.itemsize or end > len(content):
        raise ValueError(f"{name} of shape {shape} is not at its place, bytes {start} to {end}")
    return np.frombuffer(content[start:end], dtype).reshape(shape)
