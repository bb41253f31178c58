"""Registry: the named members of one axis of the design space.

To add a member to an axis, derive a frozen dataclass from the base class of the axis, implement the
methods that its docstring lists, and decorate it with `@register("kind")` of that axis. It may be
in any module that is imported, in a file given to `miras --plugin`, or in a module that an
installed package names as an entry point of the group of the axis:

    [project.entry-points."miras.bias"]
    my_bias = "my_package.biases"

Entry points are loaded only when a name is unknown, or when names are listed.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from miras.config import Config, from_dict, unknown
from miras.errors import ConfigError, UnknownPartError

P = TypeVar("P", bound=Config)
M = TypeVar("M", bound=Config)


class Registry(Generic[P]):
    """Config classes by `kind`, for one axis.

    Attributes:
        axis: its name in error messages.
        group: of the entry points of installed packages that add members.
        members: the package that registers the built-in members, where it is not the one that
            defines the axis; imported when a kind is first looked up.
    """

    def __init__(self, axis: str, group: str, members: str = ""):
        self.axis = axis
        self.group = group
        self.members = members
        self._members: dict[str, type[P]] = {}
        self._tried: set[str] = set()  # entry points that were loaded or failed
        self._broken: dict[str, str] = {}  # the reason of each failed one

    def register(self, kind: str) -> Callable[[type[M]], type[M]]:
        """A class decorator that registers the class under this name.

        A class of the same module and name replaces the previous one, so that a cell of a notebook
        can be executed twice.

        Raises:
            ConfigError: the name is taken or is not an identifier.
        """
        if not kind.isidentifier():
            raise ConfigError(
                f"{self.axis} {kind!r} is not an identifier: use letters, digits and _ only."
            )

        def decorate(cls: type[M]) -> type[M]:
            if not cls.__module__.startswith("miras."):
                self._import_members()  # so that their names are taken
            if kind in self._members:
                taken = self._members[kind]
                same = (taken.__module__, taken.__qualname__) == (cls.__module__, cls.__qualname__)
                if not same or taken.__module__.startswith("miras."):
                    raise ConfigError(
                        f"{self.axis} {kind!r} is already registered by {taken.__module__}."
                        f"{taken.__name__}; choose another name."
                    )
            cls.kind = kind  # pyright: ignore
            self._members[kind] = cls  # pyright: ignore
            return cls

        return decorate

    def names(self) -> list[str]:
        """The registered kinds in order of registration; those of installed packages are last."""
        self._import_members()
        self._load_entry_points()
        return list(self._members)

    def get(self, kind: str) -> type[P]:
        """The config class of a kind.

        Raises:
            UnknownPartError: the kind is unknown, or is of an installed package that cannot be
                loaded.
        """
        self._import_members()
        known = isinstance(kind, str)
        if known and kind not in self._members:
            self._load_entry_points()
        if known and kind in self._members:
            return self._members[kind]
        if known and kind in self._broken:
            raise UnknownPartError(f"{self.axis} {kind!r} is not available: {self._broken[kind]}")
        others = "".join(f" Note: {reason}" for reason in self._broken.values())
        raise UnknownPartError(f"{unknown(self.axis, kind, self._members)}{others}")

    def _import_members(self) -> None:
        if self.members:
            importlib.import_module(self.members)

    def _load_entry_points(self) -> None:
        """Load each entry point of the group once, and record those that fail."""
        for entry in importlib.metadata.entry_points(group=self.group):
            if entry.name in self._tried:
                continue
            self._tried.add(entry.name)
            try:
                entry.load()
            except (Exception, SystemExit) as error:
                reason = f"it cannot be loaded ({type(error).__name__}: {error})"
            else:
                if entry.name in self._members:
                    continue
                reason = f"it registers no {self.axis} of this name"
            package = "an unknown package" if entry.dist is None else repr(entry.dist.name)
            self._broken[entry.name] = (
                f"the entry point {entry.name!r} = {entry.value!r} in group {self.group!r} of "
                f"{package} is broken, {reason}: repair or uninstall that package."
            )

    def knows(self, spec: object) -> bool:
        """Whether a value names a member, or is a dict with a `kind`."""
        if isinstance(spec, Mapping):
            return "kind" in spec
        return isinstance(spec, str) and spec in self.names()

    def build(self, spec: str | Mapping[str, Any] | P) -> P:
        """A member from its kind, from a dict with a `kind`, or the member itself."""
        if isinstance(spec, str):
            return self.get(spec)()
        if isinstance(spec, Mapping):
            if "kind" not in spec:
                raise ConfigError(
                    f"{self.axis} {dict(spec)!r} has no 'kind': add one of "
                    f"{', '.join(self.names())}."
                )
            cls = self.get(spec["kind"])
            return from_dict(cls, {k: v for k, v in spec.items() if k != "kind"})
        return spec
