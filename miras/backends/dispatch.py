"""Backends by name, and the choice of one for a call."""

from collections.abc import Callable
from typing import NamedTuple

from miras.backends.base import Alignment, Backend, ScanInputs, ScanResult, Unsupported
from miras.config import unknown
from miras.errors import ConfigError
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule
from miras.runtime.log import log_once

AUTO = "auto"


class RegisteredBackend(NamedTuple):
    """A registered backend.

    Attributes:
        load: imports and returns it; kernels take a second to import, which only their users pay.
        prefers: platforms on which `auto` asks it before "xla".
    """

    load: Callable[[], Backend]
    prefers: tuple[str, ...] = ()


def _reference() -> Backend:
    from miras.backends.reference import Reference

    return Reference()


def _xla() -> Backend:
    from miras.backends.xla.backend import Xla

    return Xla()


def _pallas() -> Backend:
    from miras.backends.pallas.backend import Pallas

    return Pallas()


BACKENDS: dict[str, RegisteredBackend] = {
    "reference": RegisteredBackend(_reference),
    "xla": RegisteredBackend(_xla),
    "pallas": RegisteredBackend(_pallas, prefers=("tpu", "gpu")),
}


def register(name: str, load: Callable[[], Backend], prefers: tuple[str, ...] = ()) -> None:
    """Add a backend, which `backend=name` then selects.

    Args:
        name: not one of those that exist.
        load: returns the backend; called when it is first used.
        prefers: platforms ("tpu", "gpu", "cpu") on which `backend="auto"` asks it before "xla".

    Raises:
        ConfigError: for a name that is taken.
    """
    if name in BACKENDS or name == AUTO:
        raise ConfigError(f"backend {name!r} is registered already: choose another name.")
    BACKENDS[name] = RegisteredBackend(load, prefers)


def check_backend(name: object, what: str = "backend") -> None:
    """Raise `ConfigError` for a name that no backend has."""
    if name not in BACKENDS and name != AUTO:
        raise unknown(what, name, [AUTO, *BACKENDS])


def run(rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment) -> ScanResult:
    """Run a call on the backend that `options` names.

    "auto" takes the first backend preferred on this device that supports the call, else "xla".

    Raises:
        ConfigError: where the named backend cannot run the call, with the reason.
    """
    call = rule, inputs, options, alignment
    if options.backend != AUTO:
        backend = BACKENDS[options.backend].load()
        plan = backend.plan(*call)
        if isinstance(plan, Unsupported):
            raise ConfigError(
                f'backend="{options.backend}" cannot run this: {plan.reason}; use "xla" or "auto".'
            )
        return backend.run(*call, plan)
    for name, backend in _preferred():
        plan = backend.plan(*call)
        if not isinstance(plan, Unsupported):
            log_once(f"backend {name} for {rule}: {plan}")
            return backend.run(*call, plan)
        log_once(f"not backend {name} for {rule}: {plan.reason}")
    backend = BACKENDS["xla"].load()
    return backend.run(*call, backend.plan(*call))


def _preferred() -> list[tuple[str, Backend]]:
    from miras.backends.pallas.target import platform

    here = platform()
    return [(name, entry.load()) for name, entry in BACKENDS.items() if here in entry.prefers]
