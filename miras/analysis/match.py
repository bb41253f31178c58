"""Models of equal size: the widths at which a model has a given number of parameters.

Presets differ in the size of their learned memories, so at equal widths they are not equally large.
"""

import argparse
import dataclasses
import math
import re
from typing import TYPE_CHECKING

from miras.config import require

if TYPE_CHECKING:
    from miras.models import LanguageModelConfig

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def match(
    config: "LanguageModelConfig", parameters: int, *, fixed_width: bool = False
) -> "LanguageModelConfig":
    """The config with the width, and then the SwiGLU's, that bring it nearest to a size.

    The width goes in steps of 8 channels a head; layers, heads and all else stay.

    Args:
        config: the model.
        parameters: how many it shall have, > 0.
        fixed_width: change the SwiGLU alone.

    Raises:
        ConfigError: where the nearest is more than 1 % off.
    """
    require(parameters > 0, f"parameters={parameters} must be above 0.")
    narrow = config if fixed_width else _widest_below(config, parameters)
    found = _with_swiglu(narrow, parameters)
    size = _size(found)
    change = "layers, heads or vocab" + (" or width" if fixed_width else "")
    require(
        abs(size - parameters) <= 0.01 * parameters,
        f"no width brings {config.layers} layers of this model within 1 % of {parameters:,} "
        f"parameters: the nearest has {size:,}; change {change}.",
    )
    return found


def _widest_below(config: "LanguageModelConfig", parameters: int) -> "LanguageModelConfig":
    """At the config's own SwiGLU ratio, by bisection."""
    step = 8 * config.heads

    def at(n: int) -> "LanguageModelConfig":
        return dataclasses.replace(config, width=n * step)

    low, high = 1, 2
    while _size(at(high)) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _size(at(middle)) < parameters else (low, middle)
    return at(low)


def _with_swiglu(config: "LanguageModelConfig", parameters: int) -> "LanguageModelConfig":
    """The size is linear in the SwiGLU's hidden width, which goes in steps of 8."""

    def at(hidden: int) -> "LanguageModelConfig":
        return dataclasses.replace(config, mlp_ratio=hidden / config.width)

    first = _size(at(8))
    slope = _size(at(16)) - first
    return at(max(8, 8 + 8 * round((parameters - first) / slope)))


def _size(config: "LanguageModelConfig") -> int:
    from miras.analysis.costs import costs

    return costs(config).parameters


def number(text: str) -> int:
    """A number such as 25M, 1.3B or 340000.

    Raises:
        ConfigError: for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    require(
        found is not None and math.isfinite(float(found[1])),
        f"{text!r} is no number of parameters: write it as 25M, 1.3B or 340000.",
    )
    assert found is not None
    return round(float(found[1]) * _UNITS[found[2]])


def add_parser(commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "match",
        help="find the width at which a preset has a number of parameters",
        description="Print the fields with which a preset has a number of parameters, to within "
        "1 %, to be given to `miras train`.",
        epilog="Example: `miras match yaad --params 25M layers=12 heads=8`.",
    )
    parser.add_argument(
        "words", nargs="+", metavar="PRESET [KEY=VALUE ...]", help="a preset and fields to keep"
    )
    parser.add_argument("--params", required=True, metavar="N", help="such as 25M")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from miras.config import override
    from miras.presets import preset

    name, *assignments = args.words
    require("=" not in name, f"{name!r} stands where a preset has to: write `miras match PRESET`.")
    config = override(preset(name), *(word.removeprefix("model.") for word in assignments))
    fixed = any(word.partition("=")[0].split(".")[-1] == "width" for word in assignments)
    found = match(config, number(args.params), fixed_width=fixed)
    fields = [*assignments, f"width={found.width}", f"mlp_ratio={found.mlp_ratio:.6g}"]
    words = " ".join(dict.fromkeys(fields))
    print(f"miras train {name} {words}   # {_size(found):,} parameters")
    return 0
