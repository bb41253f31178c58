"""Plugins: files and modules of the user's own that register members, and how a run keeps them.

A plugin file is one Python file that stands alone; what it registers is known from then on:

    miras train yaad bias=my_bias --plugin my_bias.py

The run's folder keeps a copy of the file, or the name of the module, so that `miras eval RUN`,
`miras generate RUN` and the same `miras train` again find it. To load a run is therefore to run
the code in its folder `plugins/`: that of a run which this user has not trained is run only where
the user says so (`miras.config.trust`). Installed packages need none of this: see
`miras.config.registry`.
"""

import ast
import dataclasses
import importlib
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Iterator
from typing import Any

from miras.config import Config, old_imports, trust
from miras.errors import ConfigError
from miras.runtime.files import expanded, write_whole

_MODULES = "modules.txt"
PREFIX = "miras_plugin_"

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
        _load_file(expanded(source))
    else:
        _load_module(str(source))


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"plugin {path} cannot be read ({error}): give a Python file.") from error


def _load_file(path: pathlib.Path) -> None:
    _run(path, _read(path))


def _run(path: pathlib.Path, text: str) -> None:
    if path.stem in _files and _files[path.stem][1] == text:
        return
    module = types.ModuleType(PREFIX + path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        tree = old_imports.translate(ast.parse(text, str(path)))
        exec(compile(tree, str(path), "exec"), module.__dict__)
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

    They are recorded as the user's own (`miras.config.trust`).

    Raises:
        OSError: where the disk refuses.
    """
    modules = list(dict.fromkeys([*_modules, *(m for c in configs for m in _outside(c))]))
    if not _files and not modules:
        return
    folder.mkdir(exist_ok=True)
    for name, (_, text) in _files.items():
        write_whole(folder / f"{name}.py", text)
    if modules:
        write_whole(folder / _MODULES, "".join(f"{name}\n" for name in modules))
    trust.record([text for _, text in _files.values()], modules)


def _outside(value: Any) -> Iterator[str]:
    """The importable modules, other than miras and plugin files, of the parts of a config."""
    if not isinstance(value, Config):
        return
    module = type(value).__module__
    if not module.startswith(("miras.", PREFIX)) and module != "__main__":
        yield module
    for field in dataclasses.fields(value):
        yield from _outside(getattr(value, field.name))


def restore(folder: pathlib.Path) -> None:
    """Load the plugins that `save` kept in a folder; nothing happens where there is none.

    Raises:
        ConfigError: where a plugin of the same name was loaded with another text, one cannot be
            loaded, or the user has not trusted it, saying what to do.
    """
    try:
        if not folder.is_dir():
            return
    except OSError:  # no path that could exist
        return
    new = {}
    for path in sorted(folder.glob("*.py")):
        loaded, text = _files.get(path.stem), _read(path)
        if loaded is None:
            new[path] = text
        elif loaded[1] != text:
            raise ConfigError(
                f"{loaded[0]} is not the plugin with which the run was started, {path}: give the "
                "same text, or start another run with --out."
            )
    listed = folder / _MODULES
    names = _read(listed).split() if listed.exists() else []
    modules = [name for name in names if name not in _files]
    unknown = [name for name in modules if name not in sys.modules]
    trust.check(folder, {path.name: text for path, text in new.items()}, unknown)
    for path, text in new.items():
        _run(path, text)
    for name in modules:
        _load_module(name)
