"""Which plugins this user trusts: digests of code that the user has trained with.

    $XDG_STATE_HOME/miras/trusted_plugins.json, or ~/.local/state/miras/trusted_plugins.json

Training records the plugins that it is given. Files in the folder of a run are not evidence of
trust.
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
from miras.runtime.files import write_atomically

_log = logging.getLogger("miras.config.trust")
_trust_all = False


@contextlib.contextmanager
def trusting(plugins: bool) -> Iterator[None]:
    """Trust all plugins of run folders within the block if `plugins` is true."""
    global _trust_all
    before = _trust_all
    _trust_all = before or plugins
    try:
        yield
    finally:
        _trust_all = before


def check(folder: pathlib.Path, files: dict[str, str], modules: Sequence[str]) -> None:
    """Check that the user trusts the code of a run.

    Args:
        folder: of the plugins.
        files: the text of each file by its name.
        modules: names of modules that would be imported.

    Raises:
        ConfigError: code is not trusted; the message names each file with its sha256, and each
            module.
    """
    if _trust_all or os.environ.get("MIRAS_TRUST_PLUGINS") == "1" or not (files or modules):
        return
    known = _recorded()
    new = [f"{name} (sha256 {digest(text)})" for name, text in files.items()]
    new = [name for name, text in zip(new, files.values()) if digest(text) not in known]
    new += [f"module {name}" for name in modules if digest(f"module {name}") not in known]
    if new:
        raise ConfigError(
            f"loading this run would execute code in {folder} that you have not run before: "
            f"{', '.join(new)}; inspect it, then give --trust-plugins, or trust_plugins=True in "
            "Python, or set MIRAS_TRUST_PLUGINS=1."
        )


def record(texts: Sequence[str], modules: Sequence[str]) -> None:
    """Record code as trusted; log a warning if the record cannot be written."""
    new = {digest(text) for text in texts} | {digest(f"module {name}") for name in modules}
    try:
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(path.parent):
            known = _recorded()
            if new <= known:
                return
            write_atomically(path, json.dumps({"sha256": sorted(known | new)}, indent=1) + "\n")
            path.chmod(0o600)
    except (OSError, RuntimeError, ConfigError) as error:
        _log.warning(
            "warning: cannot record the plugins of the run as trusted (%s): loading the run will "
            "require --trust-plugins.",
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
    """The recorded digests; none if the file is damaged or others could have written it."""
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
