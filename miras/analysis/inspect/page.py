"""Page: a trace as one HTML file, which holds its numbers and needs nothing else.

How it looks and moves is in `page.html`.
"""

import dataclasses
import html
import json
import math
import re
from importlib import resources
from typing import Any

import numpy as np

from miras.analysis.inspect.descriptions import describe_measures
from miras.analysis.inspect.trace import Trace
from miras.models import LanguageModelConfig

DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Heading:
    """What a page says of the run.

    Attributes:
        name: of the run.
        step: updates of its parameters.
        config: of its model.
    """

    name: str
    step: int
    config: LanguageModelConfig


def page(heading: Heading, trace: Trace, shown: list[str]) -> str:
    """The HTML of a trace.

    Args:
        heading: what it is of.
        trace: the numbers.
        shown: each token's text, as `visible_tokens` gives it.
    """
    template = resources.files("miras.analysis.inspect").joinpath("page.html").read_text("utf-8")
    # No `<` can end the script that holds the data, nor begin a comment in it.
    data = json.dumps(_data(heading, trace, shown), separators=(",", ":"), allow_nan=False)
    parts = {"title": html.escape(heading.name), "data": data.replace("<", "\\u003c")}
    return re.sub(r"\{\{(title|data)\}\}", lambda match: parts[match[1]], template)


def _data(heading: Heading, trace: Trace, shown: list[str]) -> dict[str, Any]:
    return {
        "name": heading.name,
        "facts": _facts(heading, trace),
        "tokens": shown,
        "layers": [n + 1 for n in trace.layers],
        "measures": {n: m._asdict() for n, m in describe_measures(list(trace.values)).items()},
        "values": {n: _numbers(np.moveaxis(x, 0, -1)) for n, x in trace.values.items()},
        "loss": _numbers(trace.loss),
    }


def _facts(heading: Heading, trace: Trace) -> list[tuple[str, str]]:
    config = heading.config
    kinds = config.rule.kinds()
    if config.architecture != "lmm" or config.letters != "M":
        kinds = {"architecture": config.architecture, "pattern": config.letters, **kinds}
    semantics = f"{config.chunk}" + (f", refine {config.refine}" if config.refine else "")
    later = trace.loss[1:]
    return [
        ("step", f"{heading.step:,}"),
        *kinds.items(),
        ("chunk", semantics + (", exact" if config.exact else "")),
        ("layers × heads", f"{config.layers} × {config.heads}"),
        ("tokens", f"{len(later):,}"),
        *([("loss", f"{later.mean():.3f} bits a token")] if len(later) else []),
    ]


def _numbers(x: Any) -> Any:
    """Nested lists of numbers of 4 significant digits; null for what is not finite."""
    if isinstance(x, np.ndarray):
        return [_numbers(y) for y in x]
    return float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None
