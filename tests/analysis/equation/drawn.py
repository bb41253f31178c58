"""LaTeX is drawn: matplotlib parses each line, and its braces match."""

import re

from matplotlib.mathtext import MathTextParser

DRAW = MathTextParser("agg")


def check_drawn(latex: str) -> None:
    """Each line has balanced braces and is drawn by mathtext; the environment is whole."""
    begin, end = r"\begin{align*}", r"\end{align*}"
    body = latex[latex.index(begin) + len(begin) : latex.index(end)]
    outside = latex.replace(latex[latex.index(begin) : latex.index(end) + len(end)], "")
    assert all(line.startswith("%") for line in outside.splitlines() if line)
    for line in body.split(r"\\" + "\n"):
        assert line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")
        formula, _, told = line.partition("&& ")
        assert formula.replace(r"\&", "").count("&") == 1
        assert not told or re.fullmatch(r"\\text\{.*\}\s*", told)
        assert told.isascii()  # pdflatex reads no Greek in text
        DRAW.parse(f"${formula.replace('&', '').strip()}$")
