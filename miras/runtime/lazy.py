"""Packages that import their public names on first use (PEP 562).

`import miras` and `miras --help` thereby start without jax. A lazy package imports its names under
`TYPE_CHECKING`, for editors and type checkers, lists them in `__all__`, and calls `package`.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any


class _Package(types.ModuleType):
    """A package that imports a name or a submodule when the attribute is read."""

    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in self._homes:
            found = getattr(importlib.import_module(self._homes[name]), name)
        else:
            found = _submodule(self, name)
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a submodule in its package; a public name of that spelling wins.
        if isinstance(value, types.ModuleType) and name in self._homes:
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *self.__dict__.get("__all__", ())})


def package(name: str, modules: Mapping[str, Sequence[str]]) -> None:
    """Make a package lazy.

    Args:
        name: the package, its `__name__`.
        modules: public names by the module that defines them, relative to the package as in
            ".loop".
    """
    module = sys.modules[name]
    homes = {
        public: importlib.util.resolve_name(home, name)
        for home, names in modules.items()
        for public in names
    }
    module.__dict__["_homes"] = homes
    module.__class__ = _Package


def _submodule(parent: types.ModuleType, name: str) -> types.ModuleType:
    full = f"{parent.__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as error:
        if error.name != full:  # an import of the submodule
            raise
        raise AttributeError(f"module {parent.__name__!r} has no attribute {name!r}") from None
