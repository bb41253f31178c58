r"""The gradient line: what a token writes, at which weights, along which keys.

A token makes terms (read, write, value): the error of what the memory answers to `read`, as to
`value`, written along `write`. Most make one, (k_t, k_t, v_t).
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from miras.analysis.equation.setting import EquationSetting, declares, overrides, told
from miras.analysis.equation.terms import AssociationTerms
from miras.parts.formula import BiasFormula, Line, MemoryFormula, Symbols, raised, times, wrap


class GradientFormula(NamedTuple):
    """What the gradient of a token is written from.

    Attributes:
        memory: the memory's piece.
        bias: the bias's piece; None where only its name is known.
        slope: a where the residual is a pred - v.
        granularity: of the rate.
        gates: symbols of the bias's gates.
        notes: what is known of parts without a piece.
    """

    memory: MemoryFormula
    bias: BiasFormula | None
    slope: float | None
    granularity: str
    gates: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def closed(self) -> bool:
        """Whether the gradient has a short form."""
        return self.memory.gradient is not None

    def lines(self, terms: list[AssociationTerms], W: str, index: str) -> Iterator[Line]:
        """The lines that define the residual, where it is no difference, and the error of it."""
        if self.memory.writes is not None or self._by_loss:
            return
        if self.memory.fits is not None:
            yield from self._errors(terms, W, index)
            return
        if self.slope is not None:
            return
        for j, term in enumerate(terms, 1):
            at = index if len(terms) == 1 else f"{index},{j}"
            at = at if len(at) == 1 else f"{{{at}}}"
            answer = self.memory.answer(W, term.read) if term.read else ""
            if self.bias is None:
                known = "".join(f", {gate}" for gate in self.gates)
                yield Line(f"e_{at}", rf"\rho({answer or 0}, {term.value or 0}{known})")
                continue
            difference = f"{answer} - {term.value}" if term.value else answer
            yield Line(f"r_{at}", difference if answer else f"- {term.value}")
            yield Line(f"e_{at}", self.bias.residual(f"r_{at}"))

    def gradient(self, terms: list[AssociationTerms], W: str, index: str) -> str:
        """LaTeX of g without its rates; with them where terms have their own."""
        if self.memory.writes is not None:
            (term,) = terms
            return f"- {self.memory.writes(term.read, term.value)}"
        if not self.closed:
            several = len(terms) > 1
            at = [f"{index},{j}" if several else index for j in range(1, len(terms) + 1)]
            each = [self._slope(term, W, i) for term, i in zip(terms, at)]
            return " + ".join(times(t.rate if several else "", x) for t, x in zip(terms, each))
        own = len(terms) > 1 or self.granularity != "head"
        signed = list(self.signed(terms, W, index, rates=own))
        flipped = [("+" if sign == "-" else "-", x) for sign, x in signed]
        return joined(flipped).removeprefix("+ ")

    def _slope(self, term: AssociationTerms, W: str, at: str) -> str:
        """LaTeX of the gradient of a term, of a memory without a short form."""
        pairs = self._pairs(term, W)
        if self._by_loss and self.bias is not None and self.bias.loss is not None:
            found = [self.bias.loss(pred, target) for pred, target in pairs]
        else:
            named = self._names(at)
            found = [rf"\langle {pred}, {e} \rangle" for (pred, _), e in zip(pairs, named)]
        total = found[0] if len(found) == 1 else f"({' + '.join(found)})"
        return rf"\nabla_W \ {total}"

    def _pairs(self, term: AssociationTerms, W: str) -> tuple[tuple[str, str], ...]:
        """What a term fits to what."""
        if self.memory.fits is not None:
            return self.memory.fits(W, term.read, term.value)
        return ((self.memory.answer(W, term.read), term.value),)

    def _errors(self, terms: list[AssociationTerms], W: str, index: str) -> Iterator[Line]:
        """The errors of a memory that fits several things."""
        for j, term in enumerate(terms, 1):
            names = self._names(index if len(terms) == 1 else f"{index},{j}")
            for (pred, target), e in zip(self._pairs(term, W), names):
                if self.slope is not None:
                    answer = pred if self.slope == 1 else f"{self.slope:g} {pred}"
                    yield Line(e, f"{answer if self.slope else ''} - {target}".strip())
                elif self.bias is None:
                    known = "".join(f", {gate}" for gate in self.gates)
                    yield Line(e, rf"\rho({pred}, {target}{known})")
                else:
                    yield Line(r := e.replace("e_", "r_"), f"{pred} - {target}")
                    yield Line(e, self.bias.residual(r))

    def _names(self, at: str) -> Iterator[str]:
        """LaTeX of the error of each of the things that a term fits."""
        if self.memory.fits is None:
            yield f"e_{at}" if len(at) == 1 else f"e_{{{at}}}"
            return
        yield from (f"e_{{{at},{i}}}" for i in itertools.count(1))

    def signed(
        self, terms: list[AssociationTerms], W: str, index: str, *, rates: bool = True
    ) -> Iterator[tuple[str, str]]:
        """The step -rate g of each term, as a sign and LaTeX, where the gradient is closed."""
        assert self.memory.gradient is not None
        for j, term in enumerate(terms, 1):
            at = index if len(terms) == 1 else f"{{{index},{j}}}"
            answer = self.memory.answer(W, term.read) if term.read else ""
            sign, error = self._error(answer, term.value, f"e_{at}")
            if error == "0":
                continue
            write, rate = term.write, term.rate if rates else ""
            if rate and self.granularity == "key":
                write, rate = rf"({rate} \odot {self.memory.feature(write)})", ""
                yield sign, f"{raised(write)} {wrap(error)}"
                continue
            if rate and self.granularity == "value":
                error, rate = rf"({wrap(error)} \odot {rate})", ""
            yield sign, times(rate, self.memory.gradient(write, error))

    def _error(self, answer: str, value: str, named: str) -> tuple[str, str]:
        if self.slope is None:
            return "-", named
        pred = answer
        if self.slope not in (0, 1) and answer:
            pred = f"{self.slope:g} {answer}"
        if not answer or self.slope == 0:
            return "+", value or "0"
        return "-", f"{pred} - {value}" if value else pred

    @property
    def _by_loss(self) -> bool:
        """Whether the gradient is written as that of the loss."""
        return not self.closed and self.bias is not None and self.bias.loss is not None


def gradients_of(setting: EquationSetting, named: Symbols) -> GradientFormula:
    """The gradients of a rule, with pieces for the parts that have none.

    Args:
        setting: of the rule.
        named: symbols of the gates, at the index of the token whose loss it is.
    """
    rule, notes = setting.rule, []
    memory = rule.memory.formula(named) if declares(rule.memory, "memory") else None
    if memory is None:
        known = f"memory {told(rule.memory)}"
        if rule.memory.is_linear:
            phi = (lambda x: rf"\phi({x})") if overrides(rule.memory, "features") else lambda x: x
            memory = MemoryFormula(
                answer=lambda W, x: f"{phi(x)} {W}",
                gradient=lambda x, e: f"{raised(phi(x))} {wrap(e)}",
                feature=phi,
            )
            notes.append(f"phi is the feature map of {known}." if phi("x") != "x" else known)
        else:
            memory = MemoryFormula(answer=lambda W, x: f"M({W}, {x})")
            notes.append(f"M is the map of {known}.")
        if rule.memory.associates:
            memory = memory._replace(writes=lambda k, v: rf"\mathrm{{associations}}({k}, {v})")
            notes.append(f"associations are those that {known} makes of a key and a value.")
    bias = rule.bias.formula(named) if declares(rule.bias, "bias") else None
    if bias is None and rule.bias.slope is None:
        notes.append(f"rho is the residual, d loss / d pred, of bias {told(rule.bias)}.")
    elif bias is None:
        notes.append(
            f"the bias is {told(rule.bias)}, whose residual is {rule.bias.slope:g} pred - v."
        )
    return GradientFormula(
        memory,
        bias,
        rule.bias.slope,
        rule.algorithm.granularity,
        tuple(named[gate.name] for gate in rule.bias.gates()),
        tuple(notes),
    )


def joined(signed: list[tuple[str, str]]) -> str:
    """LaTeX of a signed sum, with the sign of its first term."""
    return " ".join(f"{sign} {latex}" for sign, latex in signed)
