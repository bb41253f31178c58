r"""LaTeX to Unicode: the subset that parts write their formulas in, as a terminal shows it.

\alpha_t W_{t-1} - \eta_t k_t^\top (k_t W_{t-1} - v_t)
α_t W_{t-1} - η_t k_tᵀ (k_t W_{t-1} - v_t)
"""

import re
import unicodedata

from miras.errors import ConfigError

_GREEK = dict(
    zip(
        [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "epsilon",
            "varepsilon",
            "zeta",
            "eta",
            "theta",
            "kappa",
            "lambda",
            "mu",
            "nu",
            "xi",
            "pi",
            "rho",
            "sigma",
            "tau",
            "phi",
            "varphi",
            "chi",
            "psi",
            "omega",
            "Delta",
            "Sigma",
            "Phi",
            "Omega",
            "ell",
        ],
        "αβγδεεζηθκλμνξπρστφφχψωΔΣΦΩℓ",
        strict=True,
    )
)
_SIGNS = {
    "sum": "Σ", "nabla": "∇", "odot": "⊙", "cdot": "·", "times": "×", "top": "ᵀ", "langle": "⟨",
    "rangle": "⟩", "lfloor": "⌊", "rfloor": "⌋", "in": "∈", "leq": "≤", "geq": "≥", "infty": "∞",
    "partial": "∂", "quad": "  ", "ldots": "...", "otimes": "⊗", "cup": "∪",
    "|": "‖", " ": " ", ",": " ", ";": " ", "{": "{", "}": "}", "_": "_", "%": "%", "&": "&",
    "#": "#",
}  # fmt: skip
_ASCII = {
    "Σ": "sum", "∇": "grad", "⊙": "*", "·": "*", "×": "x", "ᵀ": "^T", "⟨": "<", "⟩": ">",
    "⌊": "floor(", "⌋": ")", "∈": "in", "≤": "<=", "≥": ">=", "∞": "inf", "⊗": "(x)", "‖": "||",
    "√": "sqrt", "ℝ": "R", "ℓ": "l", "Φ": "Phi",
}  # fmt: skip
_NAMES = ("log", "exp", "tanh", "arctan", "min", "max")
_SYMBOLS = {**_GREEK, **_SIGNS, **{name: name for name in _NAMES}}
_ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303"}
_PLAIN = ("mathrm", "text", "operatorname")
_RAISED = dict(zip("0123456789+-T", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀ", strict=True))
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)


def text(latex: str) -> str:
    """The formula in Unicode.

    Raises:
        ConfigError: for a command that is not in the subset, or braces that do not match.
    """
    tokens = _TOKEN.findall(latex)
    told, at = _run(tokens, 0, latex)
    if at != len(tokens):
        raise ConfigError(f"the braces of the formula {latex!r} do not match.")
    return unicodedata.normalize("NFC", re.sub(" +", " ", told)).strip()


def ascii_of(told: str) -> str:
    """Unicode formulas for a terminal that shows ASCII only: alpha_t for the Greek letter."""
    names = {letter: name for name, letter in _GREEK.items()} | _ASCII
    raised = {mark: sign for sign, mark in _RAISED.items() if mark != "ᵀ"}
    told = re.sub(f"[{''.join(raised)}]+", lambda m: "^" + "".join(raised[x] for x in m[0]), told)
    told = "".join(names.get(letter, letter) for letter in told)
    for name, mark in _ACCENTS.items():
        told = re.sub(f"(.){mark}", rf"\1_{name}", unicodedata.normalize("NFD", told))
    return told.encode("ascii", "replace").decode()


def _run(tokens: list[str], at: int, latex: str) -> tuple[str, int]:
    """The tokens from `at` to the end, or to a closing brace."""
    told = ""
    while at < len(tokens) and tokens[at] != "}":
        piece, at = _one(tokens, at, latex)
        told += piece
    return told, at


def _one(tokens: list[str], at: int, latex: str) -> tuple[str, int]:
    """One token with its arguments, and where the next one stands."""
    token = tokens[at]
    at += 1
    if token == "{":
        told, at = _run(tokens, at, latex)
        if at == len(tokens):
            raise ConfigError(f"the braces of the formula {latex!r} do not match.")
        return told, at + 1
    if token in "_^":
        told, at = _argument(tokens, at, latex)
        return (_lowered(told) if token == "_" else _raised(told)), at
    if not token.startswith("\\"):
        return token, at
    name = token[1:]
    if name in _SYMBOLS:
        return _SYMBOLS[name], at
    if name == "frac":
        above, at = _argument(tokens, at, latex)
        below, at = _argument(tokens, at, latex)
        above, below = _atom(above), _atom(below)
        return (f"{above} / {below}" if " " in above + below else f"{above}/{below}"), at
    if name == "sqrt":
        told, at = _argument(tokens, at, latex)
        return f"√{told}" if len(told) == 1 or re.fullmatch(r"\w+", told) else f"√({told})", at
    if name == "mathbb":
        told, at = _argument(tokens, at, latex)
        return {"R": "ℝ"}.get(told, told), at
    if name in _PLAIN:
        return _argument(tokens, at, latex)
    if name in _ACCENTS:
        told, at = _argument(tokens, at, latex)
        return told + _ACCENTS[name], at
    raise ConfigError(
        f"the formula {latex!r} has {token!r}, which is not in the subset of LaTeX that "
        "miras.parts.formula lists: write it in those commands."
    )


def _argument(tokens: list[str], at: int, latex: str) -> tuple[str, int]:
    while at < len(tokens) and tokens[at] == " ":
        at += 1
    if at == len(tokens) or tokens[at] == "}":
        raise ConfigError(f"an argument is missing in the formula {latex!r}.")
    return _one(tokens, at, latex)


def _lowered(told: str) -> str:
    return f"_{told}" if len(told) == 1 or told.isdigit() else f"_{{{told}}}"


def _raised(told: str) -> str:
    if told == "ᵀ":
        return told
    if all(letter in _RAISED for letter in told):
        return "".join(_RAISED[letter] for letter in told)
    return f"^{told}" if len(told) == 1 else f"^({told})"


def _atom(told: str) -> str:
    """In parentheses where it is more than a number, a symbol or a call."""
    return f"({told})" if re.search(r"[ +/]|(?<=.)-", re.sub(r"\(.*\)|\{.*\}", "", told)) else told
