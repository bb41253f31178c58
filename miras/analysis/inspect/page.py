"""A trace as a single HTML file with its data; `page.html` is the template."""

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
    """The heading of a page.

    Attributes:
        name: of the run.
        step: number of updates of its parameters.
        config: of its model.
    """

    name: str
    step: int
    config: LanguageModelConfig


def page(heading: Heading, trace: Trace, shown: list[str]) -> str:
    """The HTML of a trace.

    Args:
        heading: of the page.
        trace: from `miras.analysis.inspect.trace`.
        shown: each token's text, from `visible_tokens`.
    """
    template = resources.files("miras.analysis.inspect").joinpath("page.html").read_text("utf-8")
    # Escaped, so that no `<` in the data can end the script or begin a comment.
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
        mixer = config.architecture
        kinds = {"architecture": getattr(mixer, "kind", mixer), "pattern": config.letters, **kinds}
    for letter in config.blocks:
        block = config.block(letter)
        kinds[f"block {letter}"] = block.mixer.describe(block)
    semantics = f"{config.chunk}" + (f", refine {config.refine}" if config.refine else "")
    losses = trace.loss[1:]
    return [
        ("step", f"{heading.step:,}"),
        *kinds.items(),
        ("chunk", semantics + (", exact" if config.exact else "")),
        ("layers × heads", f"{config.layers} × {config.heads}"),
        ("tokens", f"{len(losses):,}"),
        *([("loss", f"{losses.mean():.3f} bits per token")] if len(losses) else []),
    ]


def _numbers(x: Any) -> Any:
    """Nested lists of numbers with 4 significant digits; null for numbers that are not finite."""
    if isinstance(x, np.ndarray):
        return [_numbers(y) for y in x]
    return float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None
