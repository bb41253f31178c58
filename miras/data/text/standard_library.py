"""The source ``"stdlib"``: the source files and help topics of the running Python."""

import os
import pathlib
import sysconfig

from miras.data.text.text_file import TextFile
from miras.errors import ConfigError

_NOT_SOURCES = frozenset(
    ("__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests")
)


def standard_library() -> list[TextFile]:
    """The source files of the standard library, and the topics of ``pydoc_data.topics``.

    Raises:
        ConfigError: this Python has no source files.
    """
    root = pathlib.Path(sysconfig.get_path("stdlib"))
    files = []
    for path in _sources(root):
        name = path.relative_to(root)
        # Generated for one machine, or the topics, which are added one by one below.
        if name.name.startswith("_sysconfigdata") or name.parts == ("pydoc_data", "topics.py"):
            continue
        files.append(TextFile(name.as_posix(), path))
    if not files:
        raise ConfigError(
            f"data source 'stdlib' is an empty corpus, as {str(root)!r} holds no Python files: "
            "give a file, a folder or a glob."
        )
    from pydoc_data.topics import topics  # half a megabyte, so imported on demand

    files += [
        TextFile(f"pydoc_data/topics/{name}", data=text.encode("utf-8"))
        for name, text in topics.items()
    ]
    return sorted(files, key=lambda file: file.name)


def _sources(root: pathlib.Path) -> list[pathlib.Path]:
    """Python files, except hidden ones and tests; links to folders are not followed."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in _NOT_SOURCES
        ]
        found += [
            pathlib.Path(folder, name)
            for name in names
            if name.endswith(".py") and not name.startswith(".")
        ]
    return [path for path in found if path.is_file()]
