"""Registry: the named members of one axis of the design space.

To add a member to an axis, write one frozen dataclass below the axis's base class, implement what
the base's docstring asks for, and decorate it with `@register("kind")` of that axis.
"""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from miras.config import Config, from_dict, unknown
from miras.errors import ConfigError

P = TypeVar("P", bound=Config)
M = TypeVar("M", bound=Config)


class Registry(Generic[P]):
    """Config classes by `kind`, for one axis."""

    def __init__(self, axis: str):
        self.axis = axis
        self._members: dict[str, type[P]] = {}

    def register(self, kind: str) -> Callable[[type[M]], type[M]]:
        """Class decorator: make the class known by this name.

        Raises:
            ConfigError: when the name is taken.
        """

        def decorate(cls: type[M]) -> type[M]:
            if kind in self._members:
                taken = self._members[kind]
                raise ConfigError(
                    f"{self.axis} {kind!r} is already registered by {taken.__module__}."
                    f"{taken.__name__}; choose another name."
                )
            cls.kind = kind  # pyright: ignore
            self._members[kind] = cls  # pyright: ignore
            return cls

        return decorate

    def names(self) -> list[str]:
        """The registered kinds, in the order of registration."""
        return list(self._members)

    def get(self, kind: str) -> type[P]:
        """The config class of a kind.

        Raises:
            ConfigError: naming the legal kinds and the nearest match.
        """
        if not isinstance(kind, str) or kind not in self._members:
            raise unknown(self.axis, kind, self._members)
        return self._members[kind]

    def build(self, spec: str | Mapping[str, Any] | P) -> P:
        """A member from its kind, from a dict with a `kind`, or from itself."""
        if isinstance(spec, str):
            return self.get(spec)()
        if isinstance(spec, Mapping):
            if "kind" not in spec:
                raise ConfigError(
                    f"{self.axis} {dict(spec)!r} has no 'kind': add one of "
                    f"{', '.join(self._members)}."
                )
            cls = self.get(spec["kind"])
            return from_dict(cls, {k: v for k, v in spec.items() if k != "kind"})
        return spec
