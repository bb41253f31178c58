"""The files that a run needs beyond its config, copied to its folder, so that it can be moved.

    origin.json     the directory in which the run was started, and the sha256 of each file below
    tokenizer.model or tokenizer.json     a copy of the tokenizer file, if there is one
    plugins/*.py    see `miras.config.plugins`

Relative paths of a config are resolved in the directory in which the run was started, as long as
it exists.
"""

import dataclasses
import glob
import hashlib
import json
import logging
import os
import pathlib
from typing import Any

from miras.config import Config, FrozenMapping
from miras.data.tokenizers.built_in import BUILT_IN
from miras.data.tokenizers.tokenizer_file import tokenizer_file
from miras.errors import ConfigError
from miras.runtime.files import write_atomically
from miras.runtime.paths import is_remote
from miras.train.config import RunConfig

FILES = ("origin.json", "tokenizer.model", "tokenizer.json")
_log = logging.getLogger(__name__)


def save(folder: pathlib.Path, config: RunConfig, expected: str | None) -> None:
    """Copy the files of a new run to its folder, and record where it was started.

    Args:
        folder: of the run.
        config: as it was given.
        expected: the sha256 of the tokenizer file that the run has read; see `tokenizer_hash`.

    Raises:
        ConfigError: the tokenizer file has changed since.
        OSError: a file cannot be written.
    """
    hashes = {}
    if expected is not None:
        path = _tokenizer(config)
        content = path.read_bytes()
        if _digest(content) != expected:
            raise ConfigError(
                f"tokenizer file {path} changed while the run started: repeat the command."
            )
        write_atomically(folder / _kept_name(path), content)
        hashes[_kept_name(path)] = expected
    for path in sorted((folder / "plugins").glob("*.py")):
        hashes[f"plugins/{path.name}"] = _digest(path.read_bytes())
    origin = {"directory": os.getcwd(), "sha256": hashes}
    write_atomically(folder / "origin.json", json.dumps(origin, indent=1) + "\n")


def tokenizer_hash(config: RunConfig) -> str | None:
    """The sha256 of the tokenizer file; None for a built-in one.

    Raises:
        ConfigError: the file cannot be read.
    """
    if config.data.tokenizer in BUILT_IN:
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
    """Check that the plugins in the folder of a run are those that it was started with.

    Raises:
        ConfigError: a plugin differs; the message names its file.
    """
    for name, expected in _read(folder).get("sha256", {}).items():
        if name.startswith("plugins/") and (folder / name).is_file():
            _check(folder / name, expected)


def relocate(folder: pathlib.Path, config: RunConfig) -> RunConfig:
    """The config of a run with the folder's copy of the tokenizer and with absolute paths.

    Args:
        folder: of the run; if it holds no run yet, the config is returned unchanged.
        config: as it was given.

    Raises:
        ConfigError: the copy is missing, or differs from the file that the run was started with.
    """
    found = _read(folder)
    data = config.data
    start = found.get("directory")
    if isinstance(start, str) and start != os.getcwd():
        data = _with_absolute_paths(data, start)
    if data.tokenizer not in BUILT_IN:
        name = _kept_name(pathlib.PurePath(data.tokenizer))
        expected = found.get("sha256", {}).get(name)
        if expected is not None:
            copy = folder / name
            _check(copy, expected)
            data = dataclasses.replace(data, tokenizer=str(copy.absolute()))
        elif (folder / "config.json").is_file():
            _log.warning(
                "warning: %s was saved without a copy of its tokenizer: %s is used, which may have "
                "changed since.",
                folder,
                data.tokenizer,
            )
    return dataclasses.replace(config, data=data)


def check_tokenizer(folder: pathlib.Path, config: RunConfig) -> None:
    """Check that the tokenizer file that a run's config names has not changed.

    Raises:
        ConfigError: it has changed; the message names the file.
    """
    if config.data.tokenizer in BUILT_IN:
        return
    path = pathlib.PurePath(config.data.tokenizer)
    expected = _read(folder).get("sha256", {}).get(_kept_name(path))
    try:
        found = _digest(_tokenizer(config).read_bytes())
    except (OSError, ValueError, ConfigError):
        return  # the copy in the folder is used
    if expected is not None and found != expected:
        raise ConfigError(
            f"data.tokenizer={config.data.tokenizer!r} is no longer the file that the run in "
            f"{folder} was started with (sha256 {found[:12]}..., not {expected[:12]}...): restore "
            f"it from {folder / _kept_name(path)}, or start another run with --out."
        )


def _check(path: pathlib.Path, expected: Any) -> None:
    try:
        found = _digest(path.read_bytes())
    except OSError as error:
        found = f"unreadable, {error.strerror or error}"
    if found != expected:
        raise ConfigError(
            f"{path} is not the file that the run was started with (sha256 {found[:40]}, not "
            f"{str(expected)[:40]}): restore that file, or give another run folder."
        )


def _read(folder: pathlib.Path) -> dict[str, Any]:
    """The content of origin.json; empty for a run of a version that wrote none."""
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
        raise _damaged(path, "it is not a mapping of digests")
    return found


def _damaged(path: pathlib.Path, why: object) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read ({why}), it is damaged: restore it, or give another run folder."
    )


def _tokenizer(config: RunConfig) -> pathlib.Path:
    try:
        path = config.data.tokenizer
        return tokenizer_file(path) if is_remote(path) else pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"tokenizer {config.data.tokenizer!r}: {error}; give a path.") from error


def _kept_name(path: pathlib.PurePath) -> str:
    return f"tokenizer{path.suffix}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _with_absolute_paths(config: Any, start: str) -> Any:
    """The config with those relative paths made absolute that exist in the folder `start`."""
    changed = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Config):
            value = _with_absolute_paths(value, start)
        elif field.metadata.get("path") and isinstance(value, str):
            value = _absolute(value, start)
        elif field.metadata.get("path") and isinstance(value, FrozenMapping):
            value = FrozenMapping({_absolute(path, start): v for path, v in value.items()})
        changed[field.name] = value
    return dataclasses.replace(config, **changed)


def _absolute(value: str, start: str) -> str:
    if not value or value in ("stdlib", *BUILT_IN) or value.startswith(("tfds:", "~")):
        return value
    path = os.path.join(start, value)
    return path if os.path.exists(path) or glob.glob(path) else value
