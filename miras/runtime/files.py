"""Atomic writes, and checks that a path names a regular file.

miras replaces every file this way: configs, logs, tables, pages, figures and sessions.
"""

import contextlib
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Callable
from typing import Any, BinaryIO

from miras.errors import ConfigError

Content = bytes | str | Callable[[BinaryIO], Any]

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


_NEW = re.compile(r"\.[0-9a-f]{32}\.new")


def is_leftover(name: str) -> bool:
    """Whether a name is that of the temporary file of a `write_atomically` that was killed."""
    return _NEW.fullmatch(name) is not None


def expand_home(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path with `~` and `~name` replaced by home folders.

    Raises:
        ConfigError: a ~name is of no user, or there is no home folder.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        reason = str(error).rstrip(".")
        raise ConfigError(
            f"{str(path)[:60]!r}: {reason}; give a path, as ./~name for a name with a tilde."
        ) from error


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that a path names a regular file or nothing.

    Raises:
        ConfigError: the path is a folder, a symbolic link or another special file, or is invalid.
    """
    _mode(pathlib.Path(path))


def write_atomically(path: str | os.PathLike[str], content: Content) -> None:
    """Write a file completely or not at all.

    The content is written to a temporary file of unpredictable name in the same folder, which is
    renamed once it is on the disk. A reader sees the old content or the new one, and the last of
    several writers wins. A file that is replaced keeps its permissions.

    Args:
        path: a regular file, or a name that does not exist. Its folder must exist.
        content: bytes, text that is written as UTF-8, or a function that writes to the open file.

    Raises:
        ConfigError: the path is a folder, a symbolic link, a device or a pipe.
        OSError: the file cannot be written. The path is unchanged, and no temporary file is left.
    """
    path = pathlib.Path(path)
    mode = _mode(path)
    new = path.with_name(f".{secrets.token_hex(16)}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o666)  # less the umask
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                with contextlib.suppress(OSError):  # not every file system has permissions
                    os.fchmod(descriptor, mode)
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(descriptor)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    _sync(path.parent)


def _mode(path: pathlib.Path) -> int | None:
    """The permissions of a regular file; None if it does not exist."""
    try:
        found = os.lstat(path)
    except OSError:
        return None  # writing reports the reason
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} cannot name a file ({error}): give another.") from error
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise ConfigError(f"{path} is {name}, not a regular file: give the name of a file.")
    return stat.S_IMODE(found.st_mode)


def _sync(folder: pathlib.Path) -> None:
    """Make a new name in a folder durable, if the system supports it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
