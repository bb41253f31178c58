"""Models of equal size: finds the width at which a model has a given number of parameters.

Presets of equal width differ in size, since their learned memories do.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from miras.config import require

if TYPE_CHECKING:
    from miras.models import LanguageModelConfig

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def match(
    config: "LanguageModelConfig",
    parameters: int,
    *,
    fixed_width: bool = False,
    tolerance: float = 0.01,
    count: "Callable[[LanguageModelConfig], int] | None" = None,
) -> "LanguageModelConfig":
    """The config whose `width` and `mlp_ratio` bring it nearest to a number of parameters.

    The width is a multiple of 8 channels per head; no other field changes.

    Args:
        config: the model.
        parameters: the number to reach, > 0.
        fixed_width: change `mlp_ratio` only.
        tolerance: relative difference that is allowed, > 0.
        count: the parameters of a model with these blocks; `size_of` if not given.

    Raises:
        ConfigError: if the nearest model differs by more than the tolerance.
    """
    require(parameters > 0, f"parameters={parameters} must be above 0.")
    count = size_of if count is None else count
    narrow = config if fixed_width else _widest_below(config, parameters, count)
    found = _with_swiglu(narrow, parameters, count)
    size = count(found)
    change = "layers, heads or vocab" + (" or width" if fixed_width else "")
    require(
        abs(size - parameters) <= tolerance * parameters,
        f"no width gives {config.layers} layers of this model {parameters:,} parameters to within "
        f"{100 * tolerance:g} %, and the nearest has {size:,}: change {change}.",
    )
    return found


def _widest_below(
    config: "LanguageModelConfig", parameters: int, count: "Callable[[LanguageModelConfig], int]"
) -> "LanguageModelConfig":
    """The largest width below the size at the config's own `mlp_ratio`, by bisection."""
    step = 8 * config.heads

    def at(n: int) -> "LanguageModelConfig":
        return dataclasses.replace(config, width=n * step)

    low, high = 1, 2
    while count(at(high)) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(at(middle)) < parameters else (low, middle)
    return at(low)


def _with_swiglu(
    config: "LanguageModelConfig", parameters: int, count: "Callable[[LanguageModelConfig], int]"
) -> "LanguageModelConfig":
    """Solve for the SwiGLU's hidden width, a multiple of 8, in which the size is linear."""

    def at(hidden: int) -> "LanguageModelConfig":
        return dataclasses.replace(config, mlp_ratio=hidden / config.width)

    first = count(at(8))
    slope = count(at(16)) - first
    require(
        slope > 0,
        "no block's size depends on mlp_ratio: give one a swiglu without a ratio of its own, as in "
        "M.channel=swiglu.",
    )
    return at(max(8, 8 + 8 * round((parameters - first) / slope)))


def size_of(config: "LanguageModelConfig") -> int:
    """The number of parameters of a model."""
    from miras.analysis.costs import costs

    return costs(config).parameters


def parse_size(text: str) -> int:
    """Parse a number of parameters such as 25M, 1.3B or 340000.

    Raises:
        ConfigError: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    require(
        found is not None and math.isfinite(float(found[1])),
        f"{text!r} is not a number of parameters: write it as 25M, 1.3B or 340000.",
    )
    assert found is not None
    return round(float(found[1]) * _UNITS[found[2]])
