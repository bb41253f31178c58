"""The local file of a tokenizer, which may be on an object store."""

import hashlib
import os
import pathlib

from miras.data.config import DataConfig
from miras.errors import ConfigError
from miras.runtime.files import expand_home
from miras.runtime.paths import download, is_remote, open_path


def tokenizer_file(spec: str) -> pathlib.Path:
    """The path of a tokenizer's file, or of a copy of it in the cache, made now.

    Args:
        spec: ``data.tokenizer``, but not one of `built_in`.

    Raises:
        ConfigError: the object does not exist, or the store cannot be reached.
    """
    if not is_remote(spec):
        return expand_home(spec)
    name = hashlib.sha256(spec.encode()).hexdigest()[:16]
    copy = DataConfig().cache_dir / "tokenizers" / name / os.path.basename(spec)
    try:
        download(open_path(spec), copy)
    except FileNotFoundError as error:
        raise ConfigError(
            f"tokenizer file {spec!r} does not exist: check the path, or use 'byte'."
        ) from error
    return copy
