"""What a run needs beyond its config, kept in its folder, so that the folder can be moved.

    origin.json     the folder that the run was started in, and the sha256 of each file below
    tokenizer.model or tokenizer.json     the tokenizer's file, where it has one
    plugins/*.py    see `miras.config.plugins`

Relative paths of a config are those of the folder that the run was started in, as long as it is
there.
"""

import dataclasses
import glob
import hashlib
import json
import logging
import os
import pathlib
from typing import Any

from miras.config import Config
from miras.errors import ConfigError
from miras.runtime.files import write_whole
from miras.train.config import RunConfig

NAMES = ("origin.json", "tokenizer.model", "tokenizer.json")
_BUILT_IN = "byte"
_log = logging.getLogger(__name__)


def keep(folder: pathlib.Path, config: RunConfig, expected: str | None) -> None:
    """Copy what a new run needs into its folder, and record where it was started.

    Args:
        folder: the run's.
        config: as it was given.
        expected: the sha256 of the tokenizer's file, as the run has read it; see `tokenizer_hash`.

    Raises:
        ConfigError: for a tokenizer that has changed since.
        OSError: where the disk refuses.
    """
    hashes = {}
    if expected is not None:
        path = _tokenizer(config)
        content = path.read_bytes()
        if _digest(content) != expected:
            raise ConfigError(f"tokenizer file {path} changed while the run started: start again.")
        write_whole(folder / _kept_name(path), content)
        hashes[_kept_name(path)] = expected
    for path in sorted((folder / "plugins").glob("*.py")):
        hashes[f"plugins/{path.name}"] = _digest(path.read_bytes())
    origin = {"directory": os.getcwd(), "sha256": hashes}
    write_whole(folder / "origin.json", json.dumps(origin, indent=1) + "\n")


def tokenizer_hash(config: RunConfig) -> str | None:
    """The sha256 of the tokenizer's file; None for bytes.

    Raises:
        ConfigError: where it cannot be read.
    """
    if config.data.tokenizer == _BUILT_IN:
        return None
    path = _tokenizer(config)
    try:
        return _digest(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tokenizer file {config.data.tokenizer!r} cannot be read ({error}): check the path, "
            "or use 'byte'."
        ) from error


def check_plugins(folder: pathlib.Path) -> None:
    """Refuse plugins in a run's folder that are not those that it was started with.

    Raises:
        ConfigError: naming the file.
    """
    for name, expected in _read(folder).get("sha256", {}).items():
        if name.startswith("plugins/") and (folder / name).is_file():
            _check(folder / name, expected)


def own(folder: pathlib.Path, config: RunConfig) -> RunConfig:
    """A run's config with the tokenizer that its folder keeps, and its paths made absolute.

    Args:
        folder: the run's; one that holds no run yet changes nothing.
        config: as it was given.

    Raises:
        ConfigError: where the copy is missing or is not the file that the run was started with, or
            where the path that the config names now holds another file.
    """
    found = _read(folder)
    data = config.data
    start = found.get("directory")
    if isinstance(start, str) and start != os.getcwd():
        data = _anchored(data, start)
    if data.tokenizer != _BUILT_IN:
        name = _kept_name(_tokenizer(config))
        expected = found.get("sha256", {}).get(name)
        if expected is not None:
            copy = folder / name
            _check(copy, expected)
            data = dataclasses.replace(data, tokenizer=str(copy.absolute()))
        elif (folder / "config.json").is_file():
            _log.warning(
                "warning: %s was saved without a copy of its tokenizer: %s is used, and nothing "
                "tells whether it is still the same file.",
                folder,
                data.tokenizer,
            )
    return dataclasses.replace(config, data=data)


def check_path(folder: pathlib.Path, config: RunConfig) -> None:
    """Refuse to go on with a run whose config names a tokenizer that has become another file.

    Raises:
        ConfigError: naming the file.
    """
    if config.data.tokenizer == _BUILT_IN:
        return
    path = _tokenizer(config)
    expected = _read(folder).get("sha256", {}).get(_kept_name(path))
    try:
        found = _digest(path.read_bytes())
    except (OSError, ValueError):
        return  # the run's own copy is used
    if expected is not None and found != expected:
        raise ConfigError(
            f"data.tokenizer={config.data.tokenizer!r} is no longer the file that the run in "
            f"{folder} was started with (sha256 {found[:12]}..., not {expected[:12]}...): put that "
            f"file back, from {folder / _kept_name(path)}, or start another run with --out."
        )


def _check(path: pathlib.Path, expected: Any) -> None:
    try:
        found = _digest(path.read_bytes())
    except OSError as error:
        found = f"unreadable, {error.strerror or error}"
    if found != expected:
        raise ConfigError(
            f"{path} is not the file that the run was started with (sha256 {found[:40]}, not "
            f"{str(expected)[:40]}): put that file back, or give another run folder."
        )


def _read(folder: pathlib.Path) -> dict[str, Any]:
    """What `keep` wrote; nothing for a run that was saved before there was such a file."""
    path = folder / "origin.json"
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict) or not isinstance(found.get("sha256", {}), dict):
        raise _damaged(path, "it is no mapping of them")
    return found


def _damaged(path: pathlib.Path, why: object) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({why}): it is damaged, so put it back, or give another run folder."
    )


def _tokenizer(config: RunConfig) -> pathlib.Path:
    try:
        return pathlib.Path(config.data.tokenizer).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"tokenizer {config.data.tokenizer!r}: {error}; give a path.") from error


def _kept_name(path: pathlib.Path) -> str:
    return f"tokenizer{path.suffix}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _anchored(config: Any, start: str) -> Any:
    """A config whose relative paths, where they lie in the folder `start`, are absolute."""
    changed = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Config):
            value = _anchored(value, start)
        elif field.metadata.get("path") and isinstance(value, str):
            value = _absolute(value, start)
        changed[field.name] = value
    return dataclasses.replace(config, **changed)


def _absolute(value: str, start: str) -> str:
    if not value or value in ("stdlib", _BUILT_IN) or value.startswith(("tfds:", "~")):
        return value
    path = os.path.join(start, value)
    return path if os.path.exists(path) or glob.glob(path) else value
