"""Evaluates the equations that `miras.equations` writes, token by token, in float64.

A reader of LaTeX that knows no rule: names, products, norms, sums and conditions, and what the
words behind a line say about tokens of a chunk. One head; rows are [1, D], scalars have no axis.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from miras.analysis.equation import Equations
from miras.parts.formula import Line

_TOKEN = re.compile(r"\s*(\\[a-zA-Z]+|\\.|\d+\.?\d*(?:e-?\d+)?|[a-zA-Z]|.)")
_WORDS = {
    "sign": jnp.sign, "softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid, "exp": jnp.exp,
    "tanh": jnp.tanh, "arctan": jnp.arctan, "artanh": jnp.arctanh, "log": jnp.log,
    "logit": lambda x: jnp.log(x) - jnp.log1p(-x), "max": jnp.maximum, "min": jnp.minimum,
    "ReLU": jax.nn.relu, "SiLU": jax.nn.silu, "ELU": jax.nn.elu,
    "Diag": lambda x: jnp.diag(x[0]), "Phi": lambda x: jax.scipy.stats.norm.cdf(x),
    "mean": lambda x: jnp.mean(x, axis=-1, keepdims=True),
    "var": lambda x: jnp.var(x, axis=-1, keepdims=True),
    "columns": lambda x: jax.nn.softmax(x, axis=0), "rows": lambda x: jax.nn.softmax(x, axis=1),
}  # fmt: skip


def tokens_of(latex: str) -> list[str]:
    """LaTeX in tokens; spaces that only set words apart are left out."""
    return [t for t in _TOKEN.findall(latex) if t not in ("\\ ", "\\quad")]


def split_name(left: str) -> tuple[str, str, list[str]]:
    r"""The name, index and parameters of a left side: \mathrm{S}(z, c), W_{t,j}, \theta_t."""
    found = re.fullmatch(
        r"(\\(?:mathrm|hat|bar)\{\w+\}(?:_\{\d+\})?|\\[a-zA-Z]+|\w)(?:_(\w|\{[^}]*\}))?(?:\((.*)\)(?:_j)?)?",
        left,
    )
    assert found, left
    name, index, parameters = found.groups()
    return name, (index or "").strip("{}"), re.split("[,;] ?", parameters) if parameters else []


_OF_WEIGHTS = ("W", "A", "S", "V", "G", r"\bar{W}")


def one_by_one(line: Line) -> list[Line]:
    """A line for each of several names, as in a_1, b_1 = 1, 2."""
    if "(" in line.left or ", " not in line.left:
        return [line]
    pairs = zip(line.left.split(", "), line.right.split(", "))
    return [line._replace(left=left, right=right) for left, right in pairs]


class Values:
    """What the symbols of some equations are worth.

    Args:
        found: the equations.
        given: by name and index: gates, keys, values, queries, W_0 and what the maps have learned.
        chunk: C.
    """

    def __init__(self, found: Equations, given: dict[tuple[str, Any], Any], chunk: int):
        self.lines = [
            (*split_name(line.left), line)
            for whole in (*found.update, *found.where)
            for line in one_by_one(whole)
            if line.left and line.relation == "=" and line.left != "h"
        ]
        self.given, self.chunk, self.known = given, chunk, {}

    def at(self, name: str, t: int) -> Any:
        """A symbol at a token, counted from 1."""
        return self.name(name, "t", {"t": t})

    # ---- names

    def name(self, name: str, index: str, at: dict[str, Any]) -> Any:
        """A name with its index, in a context of indices and parameters."""
        if name in at and not index:
            return at[name]
        if name in at and index == "j":
            return at[name][0]
        parts = [index] if "(" in index else index.split(",") if index else []
        place = tuple(self.place(part, at) for part in parts)
        if name == "r" and not index:
            return self.place("r", at)
        if name == "I":
            return self.given["I", ""]
        key = (name, place, at.get("t"), at.get("leaf"), at.get("n"))
        if "inside" in at:  # of a function, whose arguments differ from call to call
            kept, key = at["inside"], (name, place, at.get("n"))
            if key not in kept:
                kept[key] = self.compute(name, index, place, at)
            return kept[key]
        if key not in self.known:
            self.known[key] = self.leaf(self.compute(name, index, place, at), at)
        return self.known[key]

    def place(self, index: str, at: dict[str, Any]) -> int:
        """An index as a number."""
        known = {x: at[x] for x in "tijn" if x in at and isinstance(at[x], int)}
        if "t" in at:
            known["r"] = self.chunk * ((at["t"] - 1) // self.chunk)
        index = re.sub(r"\\min\((.*)\)", r"min(\1)", index)
        return eval(index, {"min": min}, known)

    def compute(self, name: str, index: str, place: tuple, at: dict[str, Any]) -> Any:
        for key in ((name, place), (name, ())):
            if key in self.given:
                return self.leaf(self.given[key], at)
        exact = [
            line for n, i, _, line in self.lines if n == name and i == ",".join(map(str, place))
        ]
        if exact:
            return self.by_leaf(name, exact[0].right, at)
        if place and place[0] <= 0:
            start = [
                line for n, *_, line in self.lines if n == name and f"from {name}_0" in line.when
            ]
            if start and not start[0].when.endswith("= 0"):
                return self.value(start[0].when.split("= ")[1], at)
            return 0.0
        names = [(i, line) for n, i, p, line in self.lines if n == name and not p]
        shape = [(i, line) for i, line in names if len(place) == len(i.split(",")) and i != "0"]
        for i, line in shape if place else names:
            inner = {**at, **dict(zip(i.split(","), place))} if place else at
            if all(self.place(x, inner) == y for x, y in zip(i.split(","), place)) and self.holds(
                line.when, inner
            ):
                if "from 0 at a chunk's first" in line.when and self.first(inner):
                    inner = {**inner, "zero": name}
                return self.by_leaf(name, line.right, inner)
        raise AssertionError(f"{name}_{index} at {place} is nowhere defined")

    def by_leaf(self, name: str, latex: str, at: dict[str, Any]) -> Any:
        """What is made of weights, weight by weight where there are several."""
        start = self.given["W", (0,)]
        if name == "g":
            at = {n: x for n, x in at.items() if n != "leaf"}
        if not isinstance(start, dict) or name not in _OF_WEIGHTS or "leaf" in at:
            return self.value(latex, at)
        return {leaf: self.value(latex, {**at, "leaf": leaf}) for leaf in start}

    def leaf(self, value: Any, at: dict[str, Any]) -> Any:
        return value[at["leaf"]] if isinstance(value, dict) and "leaf" in at else value

    def first(self, at) -> bool:
        return (at["t"] - 1) % self.chunk == 0

    def holds(self, when: str, at: dict[str, Any]) -> bool:
        """Whether a line is of the token at hand."""
        ends = {"first": self.first(at), "last": at["t"] % self.chunk == 0} if "t" in at else {}
        for end, here in ends.items():
            if when == f"at a chunk's {end} token":
                self.end = end
                return here
        if when == "at its other tokens":
            return not ends[self.end]
        return True

    # ---- expressions

    def value(self, latex: str, at: dict[str, Any]) -> Any:
        """The worth of an expression."""
        if r"\text{ if }" in latex:
            yes, rest = latex.split(r" \text{ if } ")
            condition, no = rest.split(r", \text{ else } ")
            small, large = condition.split(r" \leq ")
            return self.value(yes if self.value(small, at) <= self.value(large, at) else no, at)
        if latex.startswith(r"\nabla_W"):
            return self.gradient(latex.removeprefix(r"\nabla_W"), at)
        return Reading(self, tokens_of(latex), at).whole()

    def gradient(self, latex: str, at: dict[str, Any]) -> Any:
        """By the weights that M is given."""
        start = latex.index("M(") + 2
        end = latex.index(", ", start)
        point = {
            leaf: self.value(latex[start:end], {**at, "leaf": leaf})
            for leaf in self.given["W", (0,)]
        }
        rest = latex[:start] + r"\mathrm{here}" + latex[end:]
        return jax.grad(lambda W: jnp.sum(self.value(rest, {**at, r"\mathrm{here}": W})))(point)

    def call(self, name: str, args: list[Any], at: dict[str, Any]) -> Any:
        """A function that a line defines, or one that is known by its name."""
        if name == r"\phi":
            return self.given["phi", ()](args[0])
        for known, _, parameters, line in self.lines:
            if known != name or not parameters:
                continue
            if line.left.endswith("_j"):
                return self.by_slice(line, dict(zip(parameters, args)))
            inner = dict(zip(parameters, args))
            if name == "M":
                inner |= {
                    f"{n[0].upper() if n[0] == 'w' else n[0]}_{n[1:]}": w
                    for n, w in args[0].items()
                }
                inner |= {"W": next(iter(args[0].values()))} if len(args[0]) == 1 else {}
            return Values.value(self, line.right, inner | {"inside": {}})
        word = re.sub(r"\\(mathrm\{)?|\}", "", name)
        return _WORDS[word](*args)

    def by_slice(self, line, parameters: dict[str, Any]) -> Any:
        """Column by column, or row by row."""
        axis = 1 if "columns" in line.when else 0
        count = next(iter(parameters.values())).shape[axis]
        found = []
        for j in range(count):
            own = {n: (jnp.take(x, j, axis=axis),) for n, x in parameters.items()}
            found.append(self.value(line.right, own))
        return jnp.stack(found, axis=axis)


class Reading:
    """One expression, read from left to right."""

    def __init__(self, values: Values, tokens: list[str], at: dict[str, Any]):
        self.values, self.tokens, self.at, self.i = values, tokens, at, 0
        self.open: list[str] = []  # signs that their own like will close

    def whole(self) -> Any:
        found = self.sum()
        assert self.i == len(self.tokens), (self.tokens, self.i)
        return found

    def peek(self) -> str:
        return self.tokens[self.i] if self.i < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        assert not wanted or token == wanted, (self.tokens, self.i, wanted)
        self.i += 1
        return token

    def sum(self) -> Any:
        negative = self.peek() == "-" and bool(self.take())
        total = -self.product() if negative else self.product()
        while self.peek() in ("+", "-"):
            total = total + self.product() if self.take() == "+" else total - self.product()
        return total

    def product(self) -> Any:
        """Juxtaposed factors from the right, then what stands behind a sign, in its order."""
        total = self.beside()
        while self.peek() in ("\\odot", "\\cdot", "/"):
            sign, other = self.take(), self.beside()
            total = total / other if sign == "/" else total * other
        return total

    def beside(self) -> Any:
        factors = [self.power()]
        ends = ("+", "-", ",", ";", ")", "]", "}", "/", "\\odot", "\\cdot", "\\rangle")
        while self.peek() and self.peek() not in (*ends, *self.open[-1:]):
            factors.append(self.power())
        total = factors.pop()
        while factors:
            total = times(factors.pop(), total)
        return total

    def power(self) -> Any:
        start = self.peek()
        x = self.atom()
        while self.peek() == "^":
            self.take()
            exponent = self.group()
            if exponent == ["\\top"]:
                x = x.T
                continue
            p = Reading(self.values, exponent, self.at).whole()
            square = getattr(x, "ndim", 0) == 2 and x.shape[0] == x.shape[1] > 1 and start != "|"
            if p == -1 and square:
                x = jnp.linalg.inv(x)
            elif square and p == 2:
                x = x @ x
            else:
                x = x**p
        return x

    def group(self) -> list[str]:
        """The tokens of an argument."""
        if self.peek() != "{":
            return [self.take()]
        self.take("{")
        start, depth = self.i, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        return self.tokens[start : self.i - 1]

    def read(self) -> Any:
        return Reading(self.values, self.group(), self.at).whole()

    def index(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        return "".join(self.group())

    def atom(self) -> Any:
        token = self.take()
        if token[0].isdigit():
            return float(token)
        if token in ("(", "\\|", "|", "\\langle"):
            return self.enclosed(token)
        if token == "\\frac":
            above = self.read()
            return above / self.read()
        if token == "\\sqrt":
            return jnp.sqrt(self.read())
        if token == "\\pi" and self.peek() != "_":
            return jnp.pi
        if token == "\\sum":
            return self.total()
        name = token
        if token in ("\\mathrm", "\\hat", "\\bar"):
            name = f"{token}{{{''.join(self.group())}}}"
        index = self.index()
        if self.peek() == "(" and (
            token
            in (
                "\\mathrm",
                "M",
                "\\phi",
                "\\Phi",
                "\\max",
                "\\min",
                "\\tanh",
                "\\log",
                "\\exp",
                "\\arctan",
            )
        ):
            name = (
                index if index.startswith("\\mathrm") else f"{name}_{{{index}}}" if index else name
            )
            self.take("(")
            args = [self.weights() if name == "M" else self.sum()]
            while self.peek() in (",", ";"):
                self.take()
                args.append(self.sum())
            self.take(")")
            return self.values.call(name, args, self.at)
        if token == "\\log":
            return jnp.log(self.power())
        if f"{name}_{index}" in self.at:
            return self.at[f"{name}_{index}"]
        if self.at.get("zero") == name and index == "t-1":
            return 0.0
        return self.values.name(name, index, self.at)

    def weights(self) -> Any:
        """The weights that M is given, one by one."""
        start, found = self.i, {}
        if self.peek() == "\\mathrm":
            return self.sum()
        for leaf in self.values.given["W", (0,)]:
            part = Reading(self.values, self.tokens, {**self.at, "leaf": leaf})
            part.i = start
            found[leaf], self.i = part.sum(), part.i
        return found

    def enclosed(self, opened: str) -> Any:
        self.open.append(opened if opened in ("|", "\\|") else "")
        found = self.sum()
        self.open.pop()
        if opened == "(":
            self.take(")")
            return found
        if opened == "|":
            self.take("|")
            return jnp.abs(found)
        if opened == "\\langle":
            self.take(",")
            other = self.sum()
            self.take("\\rangle")
            return jnp.sum(found * other)
        self.take("\\|")
        p = self.index()
        q = 2.0 if p == "F" else float(p)
        return jnp.sum(jnp.abs(found) ** q) ** (1 / q)

    def total(self) -> Any:
        low = self.index().removeprefix("i=")
        assert self.take() == "^"
        high = "".join(self.group())
        first, last = (self.values.place(x, self.at) for x in (low, high))
        rest, found = self.i, 0.0
        for i in range(max(first, 1), last + 1):
            part = Reading(self.values, self.tokens, {**self.at, "i": i})
            part.i = rest
            found, self.i = found + part.beside(), part.i
        return found


def times(x: Any, y: Any) -> Any:
    """A matrix product of two with axes, else a product by a scalar; of a row and a column one."""
    if getattr(x, "ndim", 0) == 2 and getattr(y, "ndim", 0) == 2:
        found = x @ y
        return found[0, 0] if found.shape == (1, 1) else found
    return x * y
