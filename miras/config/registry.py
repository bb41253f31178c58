"""Registry: the named members of one axis of the design space.

To add a member to an axis, write one frozen dataclass below the axis's base class, implement what
the base's docstring asks for, and decorate it with `@register("kind")` of that axis. It may stand
in any file: one that is imported, one given to `miras --plugin`, or one that an
installed package names as an entry point of the axis's group:

    [project.entry-points."miras.bias"]
    my_bias = "my_package.biases"

Entry points are looked at when a name is unknown, or when names are listed, and not before.
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
        axis: as errors call it.
        group: of the entry points through which installed packages add members.
        members: the package that registers the built-in members, where it is not the one that
            defines the axis; imported when a kind is first looked up.
    """

    def __init__(self, axis: str, group: str, members: str = ""):
        self.axis = axis
        self.group = group
        self.members = members
        self._members: dict[str, type[P]] = {}
        self._tried: set[str] = set()  # entry points that were loaded, or could not be
        self._broken: dict[str, str] = {}  # of these the ones that could not, with the reason

    def register(self, kind: str) -> Callable[[type[M]], type[M]]:
        """Class decorator: make the class known by this name.

        A class of the same module and name takes the place of the one before it, so that a
        notebook's cell may run twice.

        Raises:
            ConfigError: when the name is taken.
        """
        if not kind.isidentifier():
            raise ConfigError(f"{self.axis} {kind!r} is no name: use letters, digits and _ only.")

        def decorate(cls: type[M]) -> type[M]:
            if not cls.__module__.startswith("miras."):
                self._import_members()  # whose names are taken
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
        """The registered kinds, in the order of registration, those of installed packages last."""
        self._import_members()
        self._load_entry_points()
        return list(self._members)

    def get(self, kind: str) -> type[P]:
        """The config class of a kind.

        Raises:
            UnknownPartError: naming the legal kinds and the nearest match; for a kind of an
                installed package that cannot be loaded, naming the package and the reason.
        """
        self._import_members()
        known = isinstance(kind, str)
        if known and kind not in self._members:
            self._load_entry_points()
        if known and kind in self._members:
            return self._members[kind]
        if known and kind in self._broken:
            raise UnknownPartError(f"{self.axis} {kind!r} is not there: {self._broken[kind]}")
        others = "".join(f" Note: {reason}" for reason in self._broken.values())
        raise UnknownPartError(f"{unknown(self.axis, kind, self._members)}{others}")

    def _import_members(self) -> None:
        if self.members:
            importlib.import_module(self.members)

    def _load_entry_points(self) -> None:
        """Import what installed packages name in the group, each once; remember what fails."""
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
                f"{package} is broken, {reason}: mend or uninstall that package."
            )

    def build(self, spec: str | Mapping[str, Any] | P) -> P:
        """A member from its kind, from a dict with a `kind`, or from itself."""
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
