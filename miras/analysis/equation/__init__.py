"""Equations of any rule, composed of what its parts say of themselves.

`miras.parts.formula` has the pieces that parts declare; here they are put together.
"""

from typing import Any

from miras.analysis.equation.compose import Equations, compose
from miras.analysis.equation.page import latex as _latex
from miras.analysis.equation.page import plain as _plain
from miras.analysis.equation.setting import setting_of
from miras.analysis.equation.text import text
from miras.parts.formula import Line

__all__ = ["Equations", "compose", "equations", "setting_of", "text", "update_of"]


def update_of(model: Any) -> list[str]:
    """The update of a config's rule in Markdown, a line each: neither what M is nor the read."""
    found = compose(setting_of(model, None, 0, False))
    lines = [line for line in found.update if not line.left.startswith(("M(", "y_t"))]
    lines = [*(lines or found.update), *found.beside]
    return [f"{_code(line)}{_for_which(line, lines)}" for line in lines]


def _code(line: Line) -> str:
    told = text(f"{line.left} {line.relation} {line.right}")
    return f"`{told}`".replace("|", r"\|")


def _for_which(line: Line, lines: list[Line]) -> str:
    """For which tokens it holds, where another line holds for the others."""
    same = [other for other in lines if other.left == line.left]
    return f" {line.when}" if len(same) > 1 else ""


def equations(
    model: Any,
    *,
    latex: bool = False,
    chunk: int | None = None,
    refine: int = 0,
    exact: bool = False,
) -> str:
    r"""The equations of a rule as it is composed, with its gates and the sources of its parts.

    Args:
        model: a `Rule`, or a config with one, such as `miras.preset("yaad")`, whose chunk, refine,
            exact and layer are written too.
        latex: an align environment, for a document with amsmath and amssymb, in place of Unicode.
        chunk: as `miras.scan` takes it, for a rule; None leaves it open, as C.
        refine: likewise.
        exact: likewise.

    Returns:
        Lines of at most 98 columns, but for formulas that are longer.

    Raises:
        ConfigError: where there is no rule, where the semantics have no meaning under it, or where
            a part's own formula is not in the subset of LaTeX that `miras.parts.formula` lists.
    """
    found = compose(setting_of(model, chunk, refine, exact))
    return (_latex if latex else _plain)(found)
