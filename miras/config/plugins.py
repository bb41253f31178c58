"""Plugins: files and modules of the user that register members, and their copies in a run's folder.

A plugin file is a self-contained Python file:

    miras train yaad bias=my_bias --plugin my_bias.py

The folder of the run keeps a copy of the file, or the name of the module, for `miras eval RUN`,
`miras generate RUN` and a resumed `miras train`. Loading a run therefore executes the code in its
`plugins/`; the code of a run that this user has not trained is executed only if the user trusts it
(`miras.config.trust`). Installed packages use entry points instead, see `miras.config.registry`.
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
from miras.config.paths import entries
from miras.errors import ConfigError
from miras.runtime.files import expand_home, write_atomically

_MODULES = "modules.txt"
PREFIX = "miras_plugin_"

_files: dict[str, tuple[pathlib.Path, str]] = {}  # by name: the path and the text
_modules: list[str] = []


def load(source: str | os.PathLike[str]) -> None:
    """Execute a plugin, which registers its members.

    Args:
        source: a path that ends in .py, or the name of an importable module. A file that was loaded
            before is executed again only if its text has changed.

    Raises:
        ConfigError: there is no such file or module, or it raises an exception.
    """
    if str(source).endswith(".py"):
        _load_file(expand_home(source))
    else:
        _load_module(str(source))


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"plugin {path} cannot be read ({error}): give a Python file.") from error


def _load_file(path: pathlib.Path) -> None:
    _execute(path, _read(path))


def _execute(path: pathlib.Path, text: str) -> None:
    if path.stem in _files and _files[path.stem][1] == text:
        return
    module = types.ModuleType(PREFIX + path.stem)
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look it up there
    try:
        tree = old_imports.translate(ast.parse(text, str(path)))
        exec(compile(tree, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == str(path)]
        where = f"{path}{lines[-1] if lines else ''}"
        raise ConfigError(f"plugin {where}, fails ({_reason(error)}): correct it.") from error
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
    """Save all loaded plugins and the modules that define parts of the configs in a folder.

    Nothing is written if there are none. They are recorded as trusted (`miras.config.trust`).

    Raises:
        OSError: a file cannot be written.
    """
    modules = list(dict.fromkeys([*_modules, *(m for c in configs for m in _external_modules(c))]))
    if not _files and not modules:
        return
    folder.mkdir(exist_ok=True)
    for name, (_, text) in _files.items():
        write_atomically(folder / f"{name}.py", text)
    if modules:
        write_atomically(folder / _MODULES, "".join(f"{name}\n" for name in modules))
    trust.record([text for _, text in _files.values()], modules)


def _external_modules(value: Any) -> Iterator[str]:
    """The modules, other than miras and plugin files, that define the parts of a config."""
    if not isinstance(value, Config):
        return
    module = type(value).__module__
    if not module.startswith(("miras.", PREFIX)) and module != "__main__":
        yield module
    for field in dataclasses.fields(value):
        for _, child in entries(getattr(value, field.name)):
            yield from _external_modules(child)


def restore(folder: pathlib.Path) -> None:
    """Load the plugins that `save` wrote to a folder, if any.

    Raises:
        ConfigError: a plugin of the same name was loaded with another text, or a plugin cannot be
            loaded or is not trusted.
    """
    try:
        if not folder.is_dir():
            return
    except OSError:  # an invalid path
        return
    new = {}
    for path in sorted(folder.glob("*.py")):
        loaded, text = _files.get(path.stem), _read(path)
        if loaded is None:
            new[path] = text
        elif loaded[1] != text:
            raise ConfigError(
                f"{loaded[0]} is not the plugin with which the run was started, {path}: give that "
                "file, or start another run with --out."
            )
    listed = folder / _MODULES
    names = _read(listed).split() if listed.exists() else []
    modules = [name for name in names if name not in _files]
    unknown = [name for name in modules if name not in sys.modules]
    trust.check(folder, {path.name: text for path, text in new.items()}, unknown)
    for path, text in new.items():
        _execute(path, text)
    for name in modules:
        _load_module(name)
