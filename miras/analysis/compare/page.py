"""Learning curves of several runs as one HTML file with its data, from `page.html`."""

import html
import json
import re
from importlib import resources
from typing import Any

from miras.analysis.compare.curves import MEASURES, ComparedRun
from miras.analysis.compare.figure import COLORS


def page(runs: list[ComparedRun]) -> str:
    """The HTML of some runs."""
    template = resources.files("miras.analysis.compare").joinpath("page.html").read_text("utf-8")
    # Escaped, so that no `<` in the data can end the script or begin a comment.
    data = json.dumps(_data(runs), separators=(",", ":"), allow_nan=False)
    title = html.escape(" · ".join(run.name for run in runs))
    parts = {"title": title, "data": data.replace("<", "\\u003c")}
    return re.sub(r"\{\{(title|data)\}\}", lambda match: parts[match[1]], template)


def _data(runs: list[ComparedRun]) -> dict[str, Any]:
    known = [name for name, of in MEASURES.items() if any(run.curve(*of) for run in runs)]
    return {
        "measures": known,
        "runs": [
            {
                "name": run.name,
                "color": COLORS[number % len(COLORS)],
                "dash": ["", "6 4", "2 3", "8 3 2 3"][number // len(COLORS) % 4],
                "tokens": run.tokens_per_step,
                "differences": run.differences,
                "curves": {name: run.curve(*MEASURES[name]) for name in known},
            }
            for number, run in enumerate(runs)
        ],
    }
