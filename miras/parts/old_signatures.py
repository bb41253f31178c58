"""Parts written for version 0.1, whose methods received single gates instead of gates by name.

A run keeps the text of its plugins, and loads and resumes with them. Only the signature is
translated here; `miras.config.old_imports` translates import paths.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from miras.errors import ConfigError


def adapt(cls: type, method: str, old: str, new: str, convert: Callable[..., tuple]) -> None:
    """Let a class define a method with its old parameters.

    Args:
        cls: a class that was just defined; only its own definition counts.
        method: name of the method.
        old: its old parameters, such as "pred, target, threshold".
        new: the parameters that it has now.
        convert: from the part and the new arguments to the old arguments.

    Raises:
        ConfigError: for a method with the old parameters that calls `super()`, whose method takes
            the new ones.
    """
    function = cls.__dict__.get(method)
    if not inspect.isfunction(function):
        return
    if ", ".join([*inspect.signature(function).parameters][1:]) != old:
        return
    if "__class__" in function.__code__.co_freevars:
        raise ConfigError(
            f"{cls.__name__}.{method}({old}) has the parameters of miras 0.1 and calls super(): "
            f"define {method}({new}), as docs/extending.md describes."
        )

    @functools.wraps(function)
    def adapted(self: Any, *args: Any) -> Any:
        return function(self, *convert(self, *args))

    setattr(cls, method, adapted)
