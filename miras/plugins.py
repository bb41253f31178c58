"""Plugins: files and modules of the user's own that register members, and how a run keeps them.

A plugin file is one Python file that stands alone; what it registers is known from then on:

    miras train yaad bias=my_bias --plugin my_bias.py

The run's folder keeps a copy of the file, or the name of the module, so that `miras eval RUN`,
`miras generate RUN` and the same `miras train` again find it. To load a run is therefore to run
the code in its folder `plugins/`. Installed packages need none of this: see `miras.registry`.
"""

import dataclasses
import importlib
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from miras.config import Config
from miras.errors import ConfigError

_MODULES = "modules.txt"
_PREFIX = "miras_plugin_"

_files: dict[str, tuple[pathlib.Path, str]] = {}  # by name: where it lay, and its text
_modules: list[str] = []


def load(source: str | os.PathLike[str]) -> None:
    """Run a plugin, so that what it registers is known.

    Args:
        source: a path that ends in .py, or the name of a module that can be imported. A file that
            was loaded before is run again only if its text has changed.

    Raises:
        ConfigError: where there is no such file or module, or running it fails.
    """
    if str(source).endswith(".py"):
        _load_file(pathlib.Path(source).expanduser())
    else:
        _load_module(str(source))


def _load_file(path: pathlib.Path) -> None:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"plugin {path} cannot be read ({error}): give a Python file.") from error
    if path.stem in _files and _files[path.stem][1] == text:
        return
    module = types.ModuleType(_PREFIX + path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == str(path)]
        where = f"{path}{lines[-1] if lines else ''}"
        raise ConfigError(f"plugin {where}, fails ({_reason(error)}): mend it.") from error
    _files[path.stem] = (path, text)


def _load_module(name: str) -> None:
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"plugin module {name!r} cannot be imported ({_reason(error)}): install it, put its "
            "folder on PYTHONPATH, or give the path of a file that ends in .py."
        ) from error
    if name not in _modules:
        _modules.append(name)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def save(folder: pathlib.Path, *configs: Config) -> None:
    """Keep in a folder what configs need beyond miras: nothing is written where nothing is.

    These are all plugins that were loaded, and the modules that define parts of the configs.

    Raises:
        OSError: where the disk refuses.
    """
    modules = list(dict.fromkeys([*_modules, *(m for c in configs for m in _outside(c))]))
    if not _files and not modules:
        return
    folder.mkdir(exist_ok=True)
    for name, (_, text) in _files.items():
        (folder / f"{name}.py").write_text(text)
    if modules:
        (folder / _MODULES).write_text("".join(f"{name}\n" for name in modules))


def _outside(value: Any) -> Iterator[str]:
    """The importable modules, other than miras and plugin files, of the parts of a config."""
    if not isinstance(value, Config):
        return
    module = type(value).__module__
    if not module.startswith(("miras.", _PREFIX)) and module != "__main__":
        yield module
    for field in dataclasses.fields(value):
        yield from _outside(getattr(value, field.name))


def restore(folder: pathlib.Path) -> None:
    """Load the plugins that `save` kept in a folder; nothing happens where there is none.

    Raises:
        ConfigError: where a plugin of the same name was loaded with another text, or one cannot
            be loaded, saying what to do.
    """
    try:
        if not folder.is_dir():
            return
    except OSError:  # no path that could exist
        return
    for path in sorted(folder.glob("*.py")):
        loaded = _files.get(path.stem)
        if loaded is None:
            _load_file(path)
        elif loaded[1] != path.read_text():
            raise ConfigError(
                f"{loaded[0]} is not the plugin with which the run was started, {path}: give the "
                "same text, or start another run with --out."
            )
    listed = folder / _MODULES
    for name in listed.read_text().split() if listed.exists() else ():
        if name not in _files:
            _load_module(name)
