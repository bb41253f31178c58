"""Parses and evaluates one LaTeX expression: products, powers, norms, sums and function calls.

It knows no rule; the values of names come from `equation_values.Values`.
"""

import re
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

if TYPE_CHECKING:
    from tests.analysis.equation.equation_values import Values

_TOKEN = re.compile(r"\s*(\\[a-zA-Z]+|\\.|\d+\.?\d*(?:e-?\d+)?|[a-zA-Z]|.)")


def tokens_of(latex: str) -> list[str]:
    """LaTeX in tokens; spaces that only set words apart are left out."""
    return [t for t in _TOKEN.findall(latex) if t not in ("\\ ", "\\quad")]


class Reading:
    """One expression, read from left to right."""

    def __init__(self, values: "Values", tokens: list[str], at: dict[str, Any]):
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
                x = jnp.transpose(x)  # also of 0, which k_0 is
                continue
            p = Reading(self.values, exponent, self.at).whole()
            square = getattr(x, "ndim", 0) == 2 and x.shape[0] == x.shape[1] > 1 and start != "|"
            if square and p == -1:
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
