"""The contract of a part's formula: what `miras describe` writes of it."""

from collections.abc import Mapping
from typing import Any

from miras.analysis.equation import compose, setting_of, text
from miras.analysis.equation.gates import is_one, symbol
from miras.analysis.equation.setting import declares
from miras.config import Config
from miras.errors import ConfigError
from miras.testing.expect import expect, name_of
from miras.testing.rules import rules_with


def check_formula(axis: str, member: Config, beside: Mapping[str, Any] | None) -> None:
    """A part's formula is in the subset of LaTeX, says something, and knows the part's gates.

    A part without one passes: `miras.equations` then names it. One that is of another class, since
    what it describes was overridden below it, is not looked at either.

    Args:
        axis: of the part.
        member: the config object.
        beside: parts that it needs; see `Rule`.
    """
    where = f"{name_of(member)}.formula"
    for rule in list(rules_with(beside, **{axis: member}))[:2]:
        try:
            found = compose(setting_of(rule, None, 0, False))
            lines = [*found.update, *found.where]
            written = [text(line.right) for line in lines]
        except ConfigError as error:
            raise AssertionError(f"{where}: {error}") from error
        expect(all(written) and found.update, f"{where} leaves a line empty: {written}.")
        if not declares(member, axis):
            continue
        told = " ".join(written)
        for gate in member.gates():  # pyright: ignore[reportAttributeAccessIssue]
            symbols = {text(symbol(gate, index)) for index in ("t", "i", "{t,1}", "{t,j}")}
            expect(
                is_one(gate) or any(known in told for known in symbols),
                f"{where} does not mention the gate {gate.name!r}: write its symbol, "
                f"gates[{gate.name!r}], into it.",
            )
    sources = member.sources()  # pyright: ignore[reportAttributeAccessIssue]
    expect(
        isinstance(sources, tuple) and all(isinstance(x, str) and x for x in sources),
        f"{name_of(member)}.sources() is {sources!r}: it must be a tuple of papers, or ().",
    )
