r"""Equations as a page: aligned Unicode for a terminal, or an align environment of LaTeX."""

import textwrap
from collections.abc import Iterable

from miras.analysis.equation.compose import Equations
from miras.analysis.equation.text import text
from miras.parts.formula import Line

WIDTH = 98
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "_%&#{}"} | {"^": r"\^{}"})


def plain(found: Equations) -> str:
    """The equations for a terminal: update, symbols, gates, notes and sources."""
    return "\n\n".join([*blocks(found), sources(found.sources)])


def blocks(found: Equations) -> list[str]:
    """All but the sources, each with its title."""
    made = [
        _titled("equations", aligned(found.update)),
        _titled("around it", aligned(found.beside)),
        _titled("where", aligned(found.where)),
        _titled("gates", aligned(found.gates)),
        _titled("inputs and outputs", [wrapped(note) for note in found.notes]),
    ]
    return [block for block in made if block]


def sources(papers: Iterable[tuple[str, str]]) -> str:
    """The papers of each axis."""
    by_axis: dict[str, list[str]] = {}
    for axis, paper in papers:
        by_axis.setdefault(axis, []).append(paper)
    return _titled("sources", table((axis, "; ".join(of)) for axis, of in by_axis.items()))


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names, and what is said of each over as many lines as it takes."""
    rows = list(rows)
    column = max((len(name) for name, _ in rows), default=0) + 4
    return [
        textwrap.fill(
            said,
            WIDTH,
            initial_indent=f"  {name:{column - 2}}",
            subsequent_indent=" " * column,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, said in rows
    ]


def _titled(title: str, lines: list[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def aligned(lines: Iterable[Line], width: int = WIDTH) -> list[str]:
    """Lines with their relations below each other, and what is said of them after."""
    rows = [(text(a), text(r), text(b), when) for a, b, r, when in lines]
    left = max((len(row[0]) for row in rows), default=0)
    formulas = [f"  {a:{left}} {r} {b}" for a, r, b, _ in rows]
    behind = [
        len(f) for f, row in zip(formulas, rows) if row[3] and len(f) + len(row[3]) < width - 2
    ]
    column = max(behind, default=0)
    found = []
    for formula, (*_, when) in zip(formulas, rows):
        if not when:
            found.append(formula)
        elif len(formula) <= column and column + 3 + len(when) <= width:
            found.append(f"{formula:{column}}   {when}")
        elif len(formula) + 3 + len(when) <= width:
            found.append(f"{formula}   {when}")
        else:
            found += [formula, *_below(when, left + 5, width)]
    return found


def _below(told: str, indent: int, width: int) -> list[str]:
    return textwrap.wrap(told, width, initial_indent=" " * indent, subsequent_indent=" " * indent)


def wrapped(sentence: str, width: int = WIDTH) -> str:
    """A sentence over several lines."""
    return textwrap.fill(sentence, width, initial_indent="  ", subsequent_indent="    ")


def latex(found: Equations) -> str:
    r"""An align environment, for a document with amsmath and amssymb; sources above."""
    head = [f"% {axis}: {paper}" for axis, paper in found.sources]
    lines = [*found.update, *found.beside, *found.where, *found.gates]
    body = " \\\\\n".join(f"  {_latex_line(line)}" for line in lines)
    notes = [f"% {note}" for note in found.notes]
    return "\n".join([*head, r"\begin{align*}", body, r"\end{align*}", *notes])


def _latex_line(line: Line) -> str:
    when = rf" && \text{{{line.when.translate(_SPECIAL)}}}" if line.when else ""
    return f"{line.left} &{line.relation} {line.right}{when}"
