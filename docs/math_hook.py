"""Turns the LaTeX of a page into MathML when the site is built, so that browsers fetch nothing."""

import html
import re

from latex2mathml.converter import convert

MATH = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, **_) -> str:
    """Replace what `pymdownx.arithmatex` marks; mkdocs calls this for every page."""
    return MATH.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["tag"] == "div" else "inline"
    latex = html.unescape(found["latex"]).strip().replace("{aligned}", "{align*}")
    return convert(latex, display=display)
