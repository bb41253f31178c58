"""Paths on local disks and on object stores: `gs://BUCKET/...` and `s3://BUCKET/...`.

Both are `etils.epath.Path`, which has the methods of `pathlib.Path`. An object store has neither
locks nor renames; what it has is that an object is written whole or not at all, and read as it was
last written.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from miras.errors import ConfigError
from miras.runtime.files import expand_home, write_atomically

_BLOCK = 2**20

# The scheme of each store, the library that reads it and the extra that installs the library.
STORES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path has the form `SCHEME://...`."""
    return "://" in os.fspath(path)


def open_path(path: str | os.PathLike[str]) -> epath.Path:
    """A local path with `~` expanded, or a path on an object store.

    Raises:
        ConfigError: the scheme is unknown, its library is not installed, or no bucket is named.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return epath.Path(expand_home(text))
    scheme, _, rest = text.partition("://")
    if scheme not in STORES:
        raise ConfigError(
            f"{text!r} has the unknown scheme {scheme!r}: give gs://BUCKET/..., s3://BUCKET/... or "
            "a local path."
        )
    library, extra = STORES[scheme]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"{text!r} needs the library {library}: install it with pip install "
            f"'miras-jax[{extra}]'."
        )
    if not rest.partition("/")[0]:
        raise ConfigError(f"{text!r} names no bucket: give {scheme}://BUCKET/...")
    return epath.Path(text)


def local_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """A local path with `~` expanded, where something is written that a store cannot hold.

    Raises:
        ConfigError: the path is a URL, or the ~name is of no user.
    """
    if is_remote(path):
        raise ConfigError(
            f"{os.fspath(path)!r} is on an object store: give a local path with --out."
        )
    return expand_home(path)


def read(path: epath.Path) -> bytes:
    """The content of a file, on an object store as it was last written.

    Raises:
        FileNotFoundError: it does not exist.
        ConfigError: the store cannot be reached, or refuses.
    """
    if not is_remote(path):
        return path.read_bytes()
    with reaching(path):
        return file_system(path).cat_file(os.fspath(path))


def read_many(found: Sequence[epath.Path], last: int | None = None) -> dict[epath.Path, bytes]:
    """The content of those files that exist; of an object store they are read at the same time.

    Args:
        found: all on a disk, or all on one object store.
        last: read only so many bytes at the end of each, > 0; all if not given.

    Raises:
        OSError: a file cannot be read.
        ConfigError: the store cannot be reached, or refuses.
    """
    if not found or not is_remote(found[0]):
        contents = {}
        for path in found:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                contents[path] = _read_file(pathlib.Path(path), last)
        return contents
    start = None if last is None else -last
    with reaching(found[0]):
        answers = file_system(found[0]).cat_ranges(
            [os.fspath(path) for path in found], [start] * len(found), [None] * len(found)
        )
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, FileNotFoundError):
                raise answer
    return {
        path: answer
        for path, answer in zip(found, answers, strict=True)
        if isinstance(answer, bytes)
    }


def _read_file(path: pathlib.Path, last: int | None) -> bytes:
    with path.open("rb") as file:
        if last is not None:
            file.seek(max(0, os.fstat(file.fileno()).st_size - last))
        return file.read()


def write(path: epath.Path, content: bytes | str) -> None:
    """Write a file completely or not at all, on a disk as on an object store.

    Raises:
        OSError: it cannot be written.
        ConfigError: the store cannot be reached, or refuses.
    """
    content = content.encode() if isinstance(content, str) else content
    if is_remote(path):
        with reaching(path):
            file_system(path).pipe_file(os.fspath(path), content)
    else:
        write_atomically(pathlib.Path(path), content)


def create(path: epath.Path, content: bytes | str) -> bool:
    """Write an object or file unless it exists, which the store or file system decides atomically.

    Returns:
        Whether it was written.

    Raises:
        OSError: the file cannot be written.
        ConfigError: the store cannot be reached, or refuses.
    """
    content = content.encode() if isinstance(content, str) else content
    if not is_remote(path):
        return _create_file(pathlib.Path(path), content)
    with reaching(path):
        try:
            # `If-None-Match: *` on S3, `ifGenerationMatch=0` on Google Cloud Storage
            file_system(path).pipe_file(os.fspath(path), content, mode="create")
        except FileExistsError:
            return False
        return True


def _create_file(path: pathlib.Path, content: bytes) -> bool:
    try:  # exclusive also among the hosts of a network file system (NFS from version 3)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with open(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(handle)
    return True


def entries(path: epath.Path) -> dict[str, bool]:
    """The names below a path, and whether each is a folder; none, if there is no such path.

    Raises:
        OSError: the folder cannot be read.
        ConfigError: the store cannot be reached, or refuses.
    """
    if not is_remote(path):
        with contextlib.suppress(FileNotFoundError), os.scandir(path) as found:
            return {entry.name: entry.is_dir() for entry in found}
        return {}
    with reaching(path):
        try:
            found = file_system(path).ls(os.fspath(path), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
    own = os.fspath(path).partition("://")[2].strip("/")
    return {
        entry["name"].rstrip("/").rpartition("/")[2]: entry["type"] == "directory"
        for entry in found
        if entry["name"].strip("/") != own  # the empty object that stands for a folder
    }


def remove(path: epath.Path) -> None:
    """Remove an object or file, or all objects below a path; nothing if there are none.

    Raises:
        OSError: the file cannot be removed.
        ConfigError: the store cannot be reached, or refuses.
    """
    if not is_remote(path):
        pathlib.Path(path).unlink(missing_ok=True)
        return
    with reaching(path), contextlib.suppress(FileNotFoundError):
        file_system(path).rm(os.fspath(path), recursive=True)


def upload(local: str | os.PathLike[str], path: epath.Path) -> None:
    """Copy a local file to an object store, or rename it on the disk on which it is.

    Raises:
        OSError: it cannot be written.
        ConfigError: the store cannot be reached, or refuses.
    """
    if is_remote(path):
        with reaching(path):
            file_system(path).put_file(os.fspath(local), os.fspath(path))
    else:
        os.replace(local, path)


def download(path: epath.Path, local: pathlib.Path) -> None:
    """Copy an object to a local file, completely or not at all; makes its folder.

    Raises:
        FileNotFoundError: the object does not exist.
        OSError: the file cannot be written.
        ConfigError: the store cannot be reached, or refuses.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    with reaching(path), file_system(path).open(os.fspath(path), "rb") as stream:
        write_atomically(local, lambda file: shutil.copyfileobj(stream, file, _BLOCK))


def file_system(path: str | os.PathLike[str]) -> Any:
    """The fsspec file system of a path on an object store; it caches no listing."""
    import fsspec

    scheme = os.fspath(path).partition("://")[0]
    return fsspec.filesystem(scheme, use_listings_cache=False)


@contextlib.contextmanager
def reaching(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the errors of a store's library, which are of many types, into one that says what to do.

    Raises:
        ConfigError: in place of all errors but those of missing files and of the local disk.
    """
    try:
        yield
    except (FileNotFoundError, ConfigError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # of the local disk
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{os.fspath(path)!r} cannot be reached ({reason}): check the bucket, the credentials "
            "and the endpoint of this machine."
        ) from error
