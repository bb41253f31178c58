"""Sums of products over tokens as one product: X_1^T Y_1 + X_2^T Y_2 = [X_1; X_2]^T [Y_1; Y_2].

The matrix units sum over up to 128 rows in the time that they take for 8. The gradient of a weight
is a sum of such products, one for each use of the weight, each over the few tokens of a tile: as
one product they take one pass through the units, and the sums between are not formed. Only the
order of the sums in float32 differs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from miras.array_typing import Array
from miras.backends.pallas.target import LANES, ROWS
from miras.backends.pallas.trace.jaxprs import (
    bind,
    evaluate,
    in_avals,
    inner_jaxprs,
    out_avals,
    source_of,
    variables,
)
from miras.backends.pallas.trace.program import Program, shapes_of, trace
from miras.backends.pallas.trace.shared_lowerings import CALLS

OVER_ROWS = (((0,), (0,)), ((), ()))
# Rows of a product up to which it is joined, and entries of the sum from which it is at any number
# of rows: elsewhere other units than the matrix units are the limit, and the backward kernel of
# `moneta` in chunks of 64 becomes 4 % longer. Chosen on 2026-12-01 by
# `python -m benchmarks.tpu_schedule` (v5e, jax 0.10.2, libtpu 0.0.42).
FEW_ROWS = 32
MANY_ENTRIES = 2**16


class RowProduct(NamedTuple):
    """A term of a sum that is x^T y.

    Attributes:
        x: variable [K, N].
        y: variable [K, M].
        within: variables that only the sum needs: the product, and its transpose.
        eqn: the product.
    """

    x: Any
    y: Any
    within: tuple[Any, ...]
    eqn: JaxprEqn


class SumOfProducts(NamedTuple):
    """A sum of terms, some of which are joined.

    Attributes:
        others: variables that are added as they are.
        joined: products that become one, of each group.
    """

    others: list[Any]
    joined: list[list[RowProduct]]


def with_summed_products(program: Program) -> Program:
    """The program with the products of each sum joined where that saves passes."""
    jaxpr = program.jaxpr
    sums, absorbed = _sums(jaxpr)
    if not sums:
        return program

    def joined(constants: list[Array], args: list[Array]) -> list[Array]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *args], strict=True))
        for eqn in jaxpr.eqns:
            if absorbed.issuperset(eqn.outvars):  # also where there are none: a call for nothing
                continue
            with source_of(eqn)():
                if eqn.outvars[0] in sums:
                    out = [_total(sums[eqn.outvars[0]], values)]
                else:
                    out = _kept(eqn, [_read(values, atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, out, strict=True))
        return [_read(values, atom) for atom in jaxpr.outvars]

    shapes = shapes_of([var.aval for var in jaxpr.invars])
    again = trace(joined, shapes_of(program.constants), shapes)
    n = len(program.constants)
    closed = again.jaxpr.replace(constvars=again.jaxpr.invars[:n], invars=again.jaxpr.invars[n:])
    return Program(closed, program.constants, program.out_tree)


def _kept(eqn: JaxprEqn, inputs: list[Array], _: Any = None) -> Sequence[Any]:
    """An equation's results: as it is, or of what it calls."""
    if CALLS.get(eqn) is None or not any(inner_jaxprs(eqn)):
        return bind(eqn, inputs)
    inner = lambda jaxpr, *args: evaluate(  # noqa: E731
        _kept, getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), *args
    )
    return CALLS(eqn, inputs, inner)


def _read(values: dict[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]


def _total(terms: SumOfProducts, values: dict[Any, Any]) -> Array:
    parts = [values[var] for var in terms.others]
    for group in terms.joined:
        x, y = (jnp.concatenate([values[getattr(p, side)] for p in group]) for side in ("x", "y"))
        params = {**group[0].eqn.params, "dimension_numbers": OVER_ROWS}
        parts.append(lax.dot_general_p.bind(x, y, **params))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _sums(jaxpr: Jaxpr) -> tuple[dict[Any, SumOfProducts], set[Any]]:
    """The sums by their variables, and the variables that are no longer formed."""
    uses = Counter(var for eqn in jaxpr.eqns for var in variables(eqn.invars))
    uses.update(variables(jaxpr.outvars))
    makers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    sums: dict[Any, SumOfProducts] = {}
    absorbed: set[Any] = set()
    for eqn in reversed(jaxpr.eqns):
        if not _adds(eqn) or eqn.outvars[0] in absorbed:
            continue
        (var,) = eqn.outvars
        terms, inner = _terms(eqn, makers, uses)
        products = [_product(term, makers, uses) for term in terms]
        joined = [group for group in _groups(products) if len(group) > 1]
        if not joined:
            continue
        within = {id(product) for group in joined for product in group}
        others = [t for t, product in zip(terms, products) if id(product) not in within]
        sums[var] = SumOfProducts(others, joined)
        absorbed.update(inner)
        absorbed.update(v for group in joined for product in group for v in product.within)
    return sums, absorbed


def _adds(eqn: JaxprEqn) -> bool:
    """Whether an equation adds two matrices."""
    if eqn.primitive.name not in ("add", "add_any"):
        return False
    shape = out_avals(eqn)[0].shape
    literal = any(isinstance(x, Literal) for x in eqn.invars)
    same = not literal and all(x.shape == shape for x in in_avals(eqn))
    return same and len(shape) == 2


def _terms(eqn: JaxprEqn, makers: dict[Any, JaxprEqn], uses: Counter) -> tuple[list, list]:
    """The terms of a sum of sums, and the sums within it."""
    terms, inner = [], []
    for var in eqn.invars:
        made = makers.get(var)
        if made is not None and uses[var] == 1 and _adds(made):
            more, within = _terms(made, makers, uses)
            terms += more
            inner += [var, *within]
        else:
            terms.append(var)
    return terms, inner


def _product(var: Any, makers: dict[Any, JaxprEqn], uses: Counter) -> RowProduct | None:
    """A term that is a product over rows to join, or the transpose of one, used by nothing else."""
    within, turned = [], False
    made = makers.get(var)
    while made is not None and made.primitive is lax.transpose_p and uses[var] == 1:
        within.append(var)
        turned = not turned
        (var,) = made.invars
        made = makers.get(var)
    if made is None or made.primitive is not lax.dot_general_p or uses[var] > 1:
        return None
    x, y = made.invars
    if isinstance(x, Literal) or isinstance(y, Literal):
        return None
    rows, columns = (aval.shape for aval in in_avals(made))
    if made.params["dimension_numbers"] != OVER_ROWS or len(rows) != 2 or len(columns) != 2:
        return None
    pays = rows[0] <= FEW_ROWS or rows[1] * columns[1] >= MANY_ENTRIES
    if rows[0] % ROWS or not pays:
        return None
    return RowProduct(*((y, x) if turned else (x, y)), (*within, var), made)


def _groups(products: list[RowProduct | None]) -> Iterator[list[RowProduct]]:
    """Products of the same dtypes and precision whose rows together fill the units at most."""
    groups: list[list[RowProduct]] = []
    for product in filter(None, products):
        rows = product.x.aval.shape[0]
        for group in groups:
            fits = rows + sum(p.x.aval.shape[0] for p in group) <= LANES
            if fits and _kind(group[0]) == _kind(product):
                group.append(product)
                break
        else:
            groups.append([product])
    return iter(groups)


def _kind(product: RowProduct) -> tuple[Any, ...]:
    params = product.eqn.params
    kinds = params["precision"], params["preferred_element_type"]
    return (product.x.aval.dtype, product.y.aval.dtype, *map(str, kinds))
