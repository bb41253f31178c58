"""Evaluates the equations that `miras.equations` writes, token by token, in float64.

What names are worth, and what the words beside a line say about tokens of a chunk; expressions are
parsed in `equation_reading`. One head; rows are [1, D], scalars have no axis.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from miras.analysis.equation import Equations
from miras.parts.formula import Line
from tests.analysis.equation.equation_reading import Reading, tokens_of

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
