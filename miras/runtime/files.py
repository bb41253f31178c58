"""Writing a file whole or not at all, and only where a regular file may lie.

Every file that miras replaces is written here: configs, logs, tables, pages, pictures and sessions.
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
    """Whether a file's name is one under which a killed `write_whole` left its part of a file."""
    return _NEW.fullmatch(name) is not None


def expanded(path: str | os.PathLike[str]) -> pathlib.Path:
    """A path with `~` and `~name` as the home folders that they stand for.

    Raises:
        ConfigError: for a ~name that no user has, or where there is no home folder.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        told = f"{str(path)[:60]!r}: {str(error).rstrip('.')}"
        raise ConfigError(f"{told}; give a path, as ./~name for a name with a tilde.") from error


def check_target(path: str | os.PathLike[str]) -> None:
    """Check that a path names a regular file or nothing; a symbolic link is neither.

    Raises:
        ConfigError: where something else has the name, or the path cannot name a file.
    """
    _mode(pathlib.Path(path))


def write_whole(path: str | os.PathLike[str], content: Content) -> None:
    """Write a file whole or not at all.

    The content goes to a new file in the same folder, whose random name nobody can foresee, and
    takes the path's name once it is on the disk. A reader sees the old file or the new one, and the
    last of several writers wins. A file that is replaced keeps its permissions.

    Args:
        path: a regular file, or a name that is free. Its folder must exist.
        content: bytes, text that is written as UTF-8, or a function that writes to the open file.

    Raises:
        ConfigError: where the path is a folder, a symbolic link, a device or a pipe.
        OSError: where it cannot be written. The path is as it was, and nothing is left beside it.
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
    """The permissions of a regular file, or None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None  # writing tells why
    except ValueError as error:
        raise ConfigError(f"{str(path)!r} cannot name a file ({error}): give another.") from error
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise ConfigError(f"{path} is {name}, not a regular file: give the name of a file.")
    return stat.S_IMODE(found.st_mode)


def _sync(folder: pathlib.Path) -> None:
    """Make a new name in a folder survive a loss of power, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
