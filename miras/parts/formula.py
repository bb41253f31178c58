r"""What a part of a rule says of itself, for `miras.equations` and `miras describe`.

Every part has a method `formula`, which gives its piece of the update, and a method `sources`,
which names the papers that the piece is from. Pieces are written once, in a subset of LaTeX that
real LaTeX and matplotlib's mathtext both draw and that `miras.equations` turns into Unicode:
Greek letters, ^ and _, \frac, \sqrt, \mathrm, \text, \hat, \bar, \tilde, \sum, \nabla, \odot,
\otimes, \cdot, \times, \top, \|, \langle, \rangle, \lfloor, \rfloor, \in, \leq, \geq, \infty,
\mathbb{R}, \partial, \log, \exp, \tanh, \arctan, \min, \max, \ldots and the spaces "\ " and \quad.

Weights multiply from the right, y = x W. Methods are given the symbols of the gates by name, as
"\eta_t" for `lr`; a constant gate has no index.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Symbols = Mapping[str, str]  # LaTeX of each gate of the rule, by name


class Line(NamedTuple):
    """One line: left relation right, when.

    Attributes:
        left: LaTeX; "" where the line goes on from the one above it.
        right: LaTeX.
        relation: LaTeX.
        when: plain English: for which tokens it holds, or what it says.
    """

    left: str
    right: str
    relation: str = "="
    when: str = ""


class MemoryFormula(NamedTuple):
    """A memory's piece.

    Attributes:
        answer: LaTeX of M(W, x), from that of W and x.
        gradient: LaTeX of the gradient of <M(W, x), e> by W, from that of x and e; None where it
            has no short form.
        feature: LaTeX of what the first weight multiplies, from that of x.
        writes: LaTeX of what a token's key and value add to the weights where that is not a
            gradient, see `Memory.associations`; None elsewhere.
        fits: LaTeX of what is fitted to what, (pred, target) each, from that of W, a key and a
            value, see `Memory.fits`; None where the answer to the key is fitted to the value.
        attends: the whole rule, of a memory that keeps the tokens themselves.
        lines: what M is.
        where: the functions and shapes in it.
    """

    answer: Callable[[str, str], str]
    gradient: Callable[[str, str], str] | None = None
    feature: Callable[[str], str] = lambda x: x
    writes: Callable[[str, str], str] | None = None
    fits: Callable[[str, str, str], tuple[tuple[str, str], ...]] | None = None
    attends: tuple[Line, ...] = ()
    lines: tuple[Line, ...] = ()
    where: tuple[Line, ...] = ()


class AssociationFormula(NamedTuple):
    """The error of what the memory answers to `read`, as to `value`, written along `write`.

    LaTeX of each, "" for a key or value of zero, and of the scale of the rate, "" for 1.
    """

    read: str
    write: str
    value: str
    scale: str = ""


class BiasFormula(NamedTuple):
    """An attentional bias's piece.

    Attributes:
        residual: LaTeX of d loss / d pred, from that of r = pred - v.
        loss: LaTeX of the loss, from that of pred and v; None where the residual is not the
            gradient of one loss, or says it better.
        where: the functions in them.
    """

    residual: Callable[[str], str]
    loss: Callable[[str, str], str] | None = None
    where: tuple[Line, ...] = ()


class RetentionFormula(NamedTuple):
    """A retention gate's piece.

    Attributes:
        decay: LaTeX of the factor on the past, where it is not the gate `log_decay` itself.
        rate: LaTeX of the rate of steps, where it is not the gate `lr` itself.
        link: LaTeX of W, from that of the dual state; None where W is the state.
        start: LaTeX of the dual state of W_0, from that of W_0.
        prox: LaTeX of the proximal map, from that of the new weight, of the old one, and of U_t.
        where: the symbols in them.
    """

    decay: str | None = None
    rate: str | None = None
    link: Callable[[str], str] | None = None
    start: Callable[[str], str] = lambda W: W
    prox: Callable[[str, str, str], str] | None = None
    where: tuple[Line, ...] = ()


class AlgorithmFormula(NamedTuple):
    r"""An algorithm's piece.

    Attributes:
        step: LaTeX of U_t with its sign, as "- \eta_t g_t" or "+ S_t".
        lines: what it is computed from.
        where: the functions in them.
    """

    step: str
    lines: tuple[Line, ...] = ()
    where: tuple[Line, ...] = ()


def number(value: float) -> str:
    r"""LaTeX of a number, with all its digits: 0.999, 10^{-6}, 2.5 \cdot 10^{-7}."""
    if value == float("inf"):
        return r"\infty"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        return str(int(value))
    if 1e-4 <= abs(value) < 1e6:
        return repr(value)
    digits, _, power = f"{value!r}".partition("e")
    if not power:
        return digits
    scale = f"10^{{{int(power)}}}"
    return scale if digits in ("1", "1.0") else rf"{digits} \cdot {scale}"


def wrap(latex: str) -> str:
    """In parentheses, where it is a sum."""
    depth = 0
    for i, letter in enumerate(latex):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0 and latex[i : i + 3] in (" + ", " - "):
            return f"({latex})"
    return f"({latex})" if latex.startswith("- ") else latex


def times(factor: str, latex: str) -> str:
    """A product, where "" is 1."""
    return f"{factor} {wrap(latex)}" if factor else latex


def raised(latex: str, power: str = r"\top") -> str:
    """A transpose, or another power: of a product in parentheses."""
    whole = latex.startswith("(") and _closes(latex) == len(latex) - 1
    bare = whole or " " not in latex
    return f"{latex if bare else f'({latex})'}^{power}"


def _closes(latex: str) -> int:
    """Where the parenthesis that opens a formula closes."""
    depth = 0
    for i, letter in enumerate(latex):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return i
    return len(latex)
