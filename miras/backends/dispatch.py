"""Backends: what runs a rule over tokens, by name."""

from collections.abc import Callable
from typing import Any, Literal

from miras.backends import reference
from miras.backends.xla import scan as xla
from miras.rule.rule import Rule

Backend = Literal["auto", "reference", "xla", "pallas"]


def _pallas(rule: Rule, *args: Any, **options: Any):
    from miras.backends.pallas import backend  # a second of imports that only its users pay for

    return backend.run(rule, *args, **options)


def _auto(rule: Rule, *args: Any, **options: Any):
    from miras.backends.pallas.target import platform

    if platform() not in ("tpu", "gpu"):
        return xla.run(rule, *args, **options)
    from miras.backends.pallas import backend

    return backend.run_or_xla(rule, *args, **options)


BACKENDS: dict[str, Callable[..., Any]] = {
    "auto": _auto,
    "reference": reference.run,
    "xla": xla.run,
    "pallas": _pallas,
}
