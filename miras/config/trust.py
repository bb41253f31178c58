"""Which code this user has run before: the digests of plugins, in the user's own state folder.

    $XDG_STATE_HOME/miras/trusted_plugins.json, or ~/.local/state/miras/trusted_plugins.json

Training records the plugins that it was given. What lies in a run's folder says nothing of itself.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence

from miras.errors import ConfigError
from miras.runtime.files import write_whole

_log = logging.getLogger("miras.config.trust")
_given = False


@contextlib.contextmanager
def trusting(plugins: bool) -> Iterator[None]:
    """Load the plugins of run folders within the block, recorded or not, if `plugins` says so."""
    global _given
    before = _given
    _given = before or plugins
    try:
        yield
    finally:
        _given = before


def check(folder: pathlib.Path, files: dict[str, str], modules: Sequence[str]) -> None:
    """Refuse code that the user has neither run before nor said to trust.

    Args:
        folder: where it lies.
        files: the text of each file by its name.
        modules: names of modules that would be imported.

    Raises:
        ConfigError: naming each file with its sha256, and each module.
    """
    if _given or os.environ.get("MIRAS_TRUST_PLUGINS") == "1" or not (files or modules):
        return
    known = _recorded()
    new = [f"{name} (sha256 {digest(text)})" for name, text in files.items()]
    new = [told for told, text in zip(new, files.values()) if digest(text) not in known]
    new += [f"module {name}" for name in modules if digest(f"module {name}") not in known]
    if new:
        raise ConfigError(
            f"loading this run would run code in {folder} that you have not run before: "
            f"{', '.join(new)}; look at it, then give --trust-plugins, or trust_plugins=True in "
            "Python, or set MIRAS_TRUST_PLUGINS=1."
        )


def record(texts: Sequence[str], modules: Sequence[str]) -> None:
    """Remember code that this user has run; where that cannot be written, a warning says so."""
    new = {digest(text) for text in texts} | {digest(f"module {name}") for name in modules}
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(path.parent):
            known = _recorded()
            if new <= known:
                return
            write_whole(path, json.dumps({"sha256": sorted(known | new)}, indent=1) + "\n")
            path.chmod(0o600)
    except (OSError, RuntimeError, ConfigError) as error:
        _log.warning(
            "warning: cannot record the run's plugins as yours (%s): --trust-plugins will be asked "
            "for when the run is loaded.",
            error,
        )


def digest(text: str) -> str:
    """The sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _path() -> pathlib.Path:
    given = os.environ.get("XDG_STATE_HOME", "")
    home = pathlib.Path(given) if os.path.isabs(given) else pathlib.Path.home() / ".local/state"
    return home / "miras" / "trusted_plugins.json"


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _recorded() -> set[str]:
    """What was recorded; nothing, where the file is damaged or somebody else could have written."""
    try:
        path = _path()
        for place in (path.parent, path):
            found = place.lstat()
            others = stat.S_IWGRP | stat.S_IWOTH
            if found.st_uid != os.geteuid() or found.st_mode & others or place.is_symlink():
                return set()
        listed = json.loads(path.read_text())["sha256"]
        return {item for item in listed if isinstance(item, str)}
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        return set()
