"""Local copies of text on object stores.

The text of a source is copied to the cache, and then read as any local text: the hash of the names
and contents is that of the same files on a disk.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import pathlib
from typing import Any

from miras.errors import ConfigError
from miras.runtime.files import write_atomically
from miras.runtime.paths import download, file_system, is_remote, open_path, reaching

_SEEN = "objects.json"
_VERSION = ("ETag", "etag", "generation", "LastModified", "mtime")  # by store


def local_copy(source: str, cache: pathlib.Path) -> str:
    """A source as it is, or the local copy of a source on an object store.

    Objects that have not changed since an earlier copy, by size and by the store's own version, are
    not copied again. Objects that are gone are removed from the copy.

    Args:
        source: a file, folder or glob, local or at ``gs://`` or ``s3://``.
        cache: folder of prepared data sets.

    Raises:
        ConfigError: nothing is there, or the store cannot be reached.
    """
    if not is_remote(source):
        return source
    root, objects = _objects(source)
    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    folder = cache / "remote" / name
    text = folder / (pathlib.PurePosixPath(root).name or "text")
    seen = _read(folder / _SEEN)
    for path, version in objects.items():
        copy = text / path
        if seen.get(path) != version or not copy.is_file():
            download(open_path(f"{root}/{path}" if path else root), copy)
    for path in seen.keys() - objects.keys():
        (text / path).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _SEEN, json.dumps(objects))
    return str(text)


def _objects(source: str) -> tuple[str, dict[str, list[Any]]]:
    """The folder of a source, and the version of each object by its path in it; "" for a file."""
    open_path(source)  # raises where the library is missing
    system, root, found = file_system(source), source.rstrip("/"), {}
    with reaching(source), contextlib.suppress(FileNotFoundError):
        if glob.has_magic(source):
            found = system.glob(source, detail=True)
            root = source[: min(source.index(c) for c in "*?[" if c in source)].rpartition("/")[0]
        elif system.isfile(root):
            found = {root: system.info(root)}
        else:
            found = system.find(root, detail=True)
    prefix = root.partition("://")[2]
    objects = {}
    for path, info in found.items():
        inside = path.partition("://")[2] if "://" in path else path
        inside = inside[len(prefix) :].lstrip("/")
        if info["type"] == "file" and not _leads_out(inside):
            version = next((str(info[key]) for key in _VERSION if info.get(key)), "")
            objects[inside] = [info.get("size"), version]
    if not objects:
        raise ConfigError(f"data source {source!r} does not exist: check the bucket and the path.")
    return root, objects


def _leads_out(path: str) -> bool:
    """Whether the name of an object cannot be that of a file below a folder."""
    return ".." in path.split("/") or path.endswith("/") or os.path.isabs(path)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
