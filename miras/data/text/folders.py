"""The files in a folder or of a glob, following symbolic links, and those that are left out.

Only names are checked here; `sources` checks the content of the files.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import pathlib
from typing import NamedTuple


class LeftOut(NamedTuple):
    """A file or folder that is not read.

    Attributes:
        name: its path relative to the folder that is read.
        reason: a countable reason: "hidden", "zip archive".
        error: the error if a source holds nothing else; may be empty.
    """

    name: str
    reason: str
    error: str = ""


class FileListing(NamedTuple):
    """The files that were found, and those that are left out."""

    files: list[pathlib.Path]
    left_out: list[LeftOut]


def walk(root: pathlib.Path) -> FileListing:
    """All files in a folder and its subfolders, in sorted order.

    Links to folders are followed after the folders themselves, and each folder is read once. A link
    to a folder that contains the link is left out.
    """
    found = FileListing([], [])
    seen: set[str] = set()
    pending = [root]
    while pending:
        pending += sorted(_descend(pending.pop(0), root, seen, found))
    found.files.sort()
    return found


def _descend(
    top: pathlib.Path, root: pathlib.Path, seen: set[str], found: FileListing
) -> list[pathlib.Path]:
    """Walk a folder without following links to folders, and return these links."""
    links: list[pathlib.Path] = []

    def leave(path: str | pathlib.Path, reason: str) -> None:
        found.left_out.append(LeftOut(pathlib.Path(path).relative_to(root).as_posix(), reason))

    def failed(error: OSError) -> None:
        leave(error.filename, "unreadable")

    for folder, folders, names in os.walk(top, onerror=failed):
        real = os.path.realpath(folder)
        if real in seen:
            leave(folder, "repeated link")
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in list(folders):
            path = pathlib.Path(folder, name)
            if name.startswith("."):
                folders.remove(name)
                leave(path, "hidden")
            elif path.is_symlink():
                folders.remove(name)
                target = os.path.realpath(path)
                if os.path.commonpath([real, target]) == target:
                    leave(path, "looping link")
                else:
                    links.append(path)
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            if name.startswith("."):
                leave(path, "hidden")
            elif os.path.isfile(path):
                found.files.append(path)
            else:
                leave(path, _special(path))
    return links


def matching(pattern: pathlib.Path) -> FileListing:
    """The files of a glob; hidden files match only patterns that begin with a dot."""
    parts = pattern.parts
    first = next(n for n, part in enumerate(parts) if glob.has_magic(part))
    if "**" in parts and not any(part.startswith(".") for part in parts[first:]):
        # glob itself follows looping links forty times.
        base = pathlib.Path(*parts[:first])
        walked = walk(base)
        wanted = tuple(part for n, part in enumerate(parts) if n >= first)
        return FileListing(
            [path for path in walked.files if _matches(path.relative_to(base).parts, wanted)],
            [
                left
                for left in walked.left_out
                if left.reason != "hidden" and _matches(pathlib.PurePath(left.name).parts, wanted)
            ],
        )
    found = FileListing([], [])
    for match in sorted(map(pathlib.Path, glob.glob(str(pattern), recursive=True))):
        if os.path.isfile(match):
            found.files.append(match)
        else:
            reason = "folder" if match.is_dir() else _special(match)
            found.left_out.append(LeftOut(str(match), reason))
    return found


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path matches a glob; ``**`` matches any number of parts."""
    reached = {0}  # numbers of parts that the pattern so far can match
    for part in pattern:
        if part == "**":
            reached = set(range(min(reached, default=len(names) + 1), len(names) + 1))
        else:
            reached = {
                n + 1 for n in reached if n < len(names) and fnmatch.fnmatchcase(names[n], part)
            }
    return len(names) in reached


def _special(path: pathlib.Path) -> str:
    return "broken link" if path.is_symlink() else "special file"
