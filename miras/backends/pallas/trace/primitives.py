"""jax's primitives by name, as the installed version exposes them.

jax 0.10 to 0.12 expose most primitives as objects, in `jax.lax` and `jax.extend.core.primitives`. A
few are public in some of these versions only, or in none, and are known by their names alone.
"""

from collections.abc import Iterable
from types import ModuleType

from jax import lax
from jax.extend.core import Primitive, primitives

Key = Primitive | str


def _exposed(modules: Iterable[ModuleType]) -> dict[str, Primitive]:
    values = (value for module in modules for value in vars(module).values())
    return {value.name: value for value in values if isinstance(value, Primitive)}


_EXPOSED = _exposed((lax, primitives))


def named(names: str) -> tuple[Key, ...]:
    """Primitives by their names, separated by spaces; a name where jax exposes no such object."""
    return tuple(_EXPOSED.get(name, name) for name in names.split())
