"""Backends: what runs the chunk step over tokens; `miras.backends.base` says how to add one."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.backends.base import (
        Alignment,
        Backend,
        ScanInputs,
        ScanResult,
        Supports,
        Unsupported,
    )
    from miras.backends.dispatch import register

__all__ = [
    "Alignment",
    "Backend",
    "ScanInputs",
    "ScanResult",
    "Supports",
    "Unsupported",
    "register",
]

lazy.package(
    __name__,
    {
        ".base": ("Alignment", "Backend", "ScanInputs", "ScanResult", "Supports", "Unsupported"),
        ".dispatch": ("register",),
    },
)
