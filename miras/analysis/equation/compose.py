r"""The equations of a rule, composed of its parts' own pieces.

In the order in which a token meets them: what M is, the error and its gradient, the algorithm's
buffers, the state, the link, the read. A line stands only where it says something: no momentum
under gd, no decay of 1, no snapshot where the rule is online.
"""

import dataclasses
from collections.abc import Iterator

from miras.analysis.equation.architecture import architecture, beside_sources
from miras.analysis.equation.decays import Decays
from miras.analysis.equation.gates import gate, gate_lines, is_one, symbol, symbols
from miras.analysis.equation.gradient import GradientFormula, gradients_of, joined
from miras.analysis.equation.inputs import associated, inputs, query, terms_of
from miras.analysis.equation.setting import EquationSetting, declares, overrides, told
from miras.analysis.equation.state import Update, state_lines
from miras.analysis.equation.terms import AssociationTerms
from miras.analysis.equation.text import ascii_of, text
from miras.parts.formula import AlgorithmFormula, Line, RetentionFormula, raised, times


@dataclasses.dataclass(frozen=True)
class Equations:
    """A rule, written.

    Attributes:
        update: the lines of the update and of the read.
        where: the symbols and functions in them.
        gates: a line for each gate.
        notes: plain sentences: inputs and outputs of the layer, and parts that have no formula.
        sources: papers, by axis.
        beside: the lines of the attention beside the memory, of Titans' architectures.
    """

    update: tuple[Line, ...]
    where: tuple[Line, ...]
    gates: tuple[Line, ...]
    notes: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    beside: tuple[Line, ...] = ()


def compose(setting: EquationSetting) -> Equations:
    """The equations of a setting."""
    lines, where, notes = _update(setting)
    made, said = inputs(setting)
    beside, told_beside = architecture(setting)
    lines = [line._replace(right=line.right.replace("q_t", "z_t")) if setting.is_mac else line
             for line in lines]  # fmt: skip
    notes = [*notes, *told_beside]
    where = [*_places(setting, [*lines, *where]), *made, *where]
    used = "".join(f"{line.left} {line.right} {line.when}" for line in lines)
    rule = setting.rule
    sources = [
        (axis, source) for axis in ("memory", "bias", "retention", "algorithm")
        for source in _sources(rule, axis)
    ]  # fmt: skip
    if rule.order == "decay_first":
        sources.append(("order", "the gradient after the decay: arXiv 2412.06464, eq. 10"))
    left_out = [
        line._replace(when=f"{line.when}, so left out")
        if line.right == "1" and line.left not in used
        else line
        for line in gate_lines(setting)
    ]
    return Equations(
        update=tuple(lines),
        where=tuple(where),
        gates=tuple(left_out),
        notes=(*notes, *said),
        sources=(*sources, *beside_sources(setting)),
        beside=tuple(beside),
    )


def _update(setting: EquationSetting) -> tuple[list[Line], list[Line], list[str]]:
    """The update and the read, what stands in them, and what is known of parts without pieces."""
    rule, algorithm = setting.rule, setting.rule.algorithm
    named = symbols(setting)
    windowed = algorithm.window > 1
    index = "i" if windowed else "t"
    at_index = symbols(setting, index)
    found = gradients_of(setting, at_index)
    if found.memory.attends:
        return [*found.memory.attends], [*found.memory.where], [*found.notes]

    kept, notes = _retention(setting, named)
    notes = [*found.notes, *notes]
    decays = Decays(setting, kept.decay, named)
    own = AssociationTerms(f"k_{index}", f"k_{index}", f"v_{index}", "")
    k, _, v, _ = associated(setting, own, at_index).terms[0]
    rate, of_rate = _rate(setting, kept, found.memory.feature(k), named)
    where = [*found.memory.where, *decays.where(), *kept.where, *of_rate]
    where += [] if found.bias is None else found.bias.where

    solved = algorithm.solution(decays, rate, found.memory.feature(k), v)
    if solved:
        return [*solved, Line("y_t", found.memory.answer("W_t", query(setting)))], where, notes

    terms, made = [], []
    for term in terms_of(setting, own.read, own.value, rate):
        found_terms, lines, said = associated(setting, term, at_index)
        terms += found_terms
        made += [line for line in lines if line not in made]
        notes += [note for note in said if note not in notes]
    lines = [*found.memory.lines, *made]
    point = _point(setting, decays)
    if algorithm.sequential and algorithm.terms > 1:
        update = _sequential(setting, found, terms[0], point, decays)
    else:
        update, more, said = _stepped(setting, found, terms, point, index, rate, named, decays)
        where += more
        notes += said
    update = update._replace(factored=_factored(setting, found, terms, decays))
    if _averages(setting):
        update, means = _averaged(setting, update)
        where.append(means)
    lines += [*update.lines, *state_lines(setting, update, kept, decays)]
    snapshot = "W_{t-1}" if setting.chunk == 1 else _snapshot(setting)
    W = "W_t" if rule.read == "token" else snapshot
    lines.append(Line("y_t", found.memory.answer(W, query(setting))))
    if kept.link is not None:
        start = kept.start("W_0")
        odd = start == "W_0" and kept.link("A") != "A"  # no inverse, so W_0 is not read as it is
        when = f"so that the first tokens see {ascii_of(text(kept.link('W_0')))}" if odd else ""
        where.insert(0, Line("A_0", start, when=when))
        if snapshot == r"\bar{W}_t" and any(snapshot in line.right for line in lines):
            told_ = "W before the chunk; W after the chunk's first token for the tokens after it"
            where.insert(0, Line(snapshot, kept.link(r"A_{\min(t-1, r+1)}"), when=told_))
    return lines, where, notes


def _rate(
    setting: EquationSetting, kept: RetentionFormula, k: str, named
) -> tuple[str, tuple[Line, ...]]:
    """LaTeX of the rate of a token's step, "" for 1, and what defines it."""
    algorithm, lr = setting.rule.algorithm, gate(setting.rule, "rate")
    if lr is None:
        return "", ()
    rate = named[lr.name] if kept.rate is None else kept.rate
    if declares(algorithm, "algorithm", "rate_formula"):
        made, lines = algorithm.rate_formula(rate, k)
        if lines:
            return made, lines
    if kept.rate is None and is_one(lr):
        return "", ()
    return rate, ()


def _retention(setting: EquationSetting, named) -> tuple[RetentionFormula, list[str]]:
    """The retention's piece, or what its contract says."""
    part = setting.rule.retention
    if declares(part, "retention"):
        found = part.formula(named)
        if found is not None:
            return found, []
    known, notes = f"retention {told(part)}", []
    link = prox = None
    if part.linked is not None and part.proximal:
        prox = lambda new, old, step: rf"\mathrm{{prox}}({new}; \ {old})"  # noqa: E731
        notes.append(f"prox is the proximal map of {known}.")
    elif part.linked is not None:
        link = lambda A: rf"\mathrm{{link}}({A})"  # noqa: E731
        notes.append(f"link is the map from dual to primal weights of {known}.")
    if overrides(part, "effective"):
        notes.append(f"the gates are first mapped by `effective` of {known}.")
    return RetentionFormula(link=link, prox=prox), notes or [f"{known}."]


def _snapshot(setting: EquationSetting) -> str:
    """LaTeX of the weights before the chunk, as gradients and snapshot reads see them."""
    retention = setting.rule.retention
    lags = retention.linked == "chunk" and not retention.proximal and retention.lag
    return r"\bar{W}_t" if lags else "W_r"


def _point(setting: EquationSetting, decays: Decays) -> str:
    """LaTeX of the weights at which the gradient is taken."""
    W = "W_{t-1}"
    if not setting.online:
        W = r"\hat{W}_{t-1}" if setting.refine else _snapshot(setting)
    return decays(W) if setting.rule.order == "decay_first" else W


def _stepped(
    setting: EquationSetting,
    found: GradientFormula,
    terms: list[AssociationTerms],
    point: str,
    index: str,
    rate: str,
    named,
    decays: Decays,
) -> tuple[Update, list[Line], list[str]]:
    """The update of an algorithm that takes one step a token."""
    algorithm = setting.rule.algorithm
    known = declares(algorithm, "algorithm")
    plain = found.closed and found.memory.writes is None
    lines = list(found.lines(terms, point, index))
    if algorithm.local and known and plain and setting.rule.retention.linked is None:
        step = joined(list(found.signed(terms, point, index)))
        erased, more = _erased(setting, found, terms[0], decays, rate)
        return Update(step + erased, (*lines, *more)), [], []

    g = found.gradient(terms, point, index)
    held = f"e_{index} held" if r"\langle" in g and f"e_{index}" in g else ""
    if found.memory.fits is not None and r"\langle" in g:
        held = "e held"
    lines.append(Line(f"g_{index}", g, when=held))
    G = "g_t"
    if algorithm.window > 1:
        gamma = gate(setting.rule, "weight")
        weight = "" if gamma is None or is_one(gamma) else symbol(gamma, "i")
        total = rf"\sum_{{i=t-{algorithm.window - 1}}}^{{t}} {times(weight, 'g_i')}"
        when = f"the last {algorithm.window} written tokens, all at the weights of token t"
        lines.append(Line("G_t", total, when=when))
        G = "G_t"
    at_gradient = algorithm.lr_at == "gradient"
    rated = len(terms) > 1 or (plain and found.granularity != "head")
    G = times(rate, G) if at_gradient and not rated else G
    step = algorithm.formula(named, G, "" if at_gradient else rate) if known else None
    notes = []
    if step is None:
        buffers = "".join(f"{name}_{{t-1}}, " for name in algorithm.keeps)
        more = [named[g.name] for g in algorithm.gates() if g.role not in ("rate", "weight")]
        more += [] if at_gradient or not rate else [rate]
        U = rf"\mathrm{{step}}({buffers}{', '.join([G, *more])})"
        step = AlgorithmFormula("+ U_t", (Line("U_t", U),))
        notes.append(f"step is that of algorithm {told(algorithm)}.")
    erased, more = _erased(setting, found, terms[0], decays, rate)
    return Update(step.step + erased, (*lines, *step.lines, *more)), list(step.where), notes


def _erased(
    setting: EquationSetting,
    found: GradientFormula,
    term: AssociationTerms,
    decays: Decays,
    rate: str,
) -> tuple[str, tuple[Line, ...]]:
    """What an algorithm erases along the input of each matrix, "" for nothing, and its rate."""
    rule = setting.rule
    if not rule.algorithm.erases:
        return "", ()
    x, lines = found.memory.feature(term.read), ()
    if not rule.memory.is_linear:
        x, when = "u_t", "the input of each matrix for k_t, at the weights of the gradient"
        lines = (Line(x, r"\mathrm{input}(W)", when=when),)
    matrix, more = rule.algorithm.erasing_formula(rate, x)
    past = decays("W_{t-1}") if rule.order == "decay_first" else "W_{t-1}"
    return f" - {matrix} {past}", (*lines, *more)


def _averages(setting: EquationSetting) -> bool:
    """Whether W_t is the snapshot plus a multiple of the chunk's steps so far."""
    return setting.rule.algorithm.averaged


def _averaged(setting: EquationSetting, update: Update) -> tuple[Update, Line]:
    """The update from the snapshot, and what the sum of the steps is scaled by."""
    total = Line("S_t", f"S_{{t-1}} {update.step}", when="from 0 at a chunk's first token")
    mean, when = r"\frac{1}{t-r}", "or as `average` of miras.scan has it"
    if setting.layer is not None:
        mean = rf"\max(0, {mean} + o_{{t-r}})"
        when = "o learned by position in the chunk, 0 at the start"
    update = Update("", (*update.lines, total), whole=r"W_r + \theta_t S_t")
    return update, Line(r"\theta_t", mean, when=when)


def _sequential(
    setting: EquationSetting,
    found: GradientFormula,
    term: AssociationTerms,
    point: str,
    decays: Decays,
) -> Update:
    """Several steps on a token, one after the other."""
    n, rule = setting.rule.algorithm.terms, setting.rule
    before, after = "W_{t,j-1}", "W_{t,j}"
    lines = [Line("W_{t,0}", point), *found.lines([term], before, "t,j")]
    lines = [line._replace(left=line.left.replace("t,j", "{t,j}")) if "{" not in line.left else line
             for line in lines]  # fmt: skip
    if found.closed:
        step = joined(list(found.signed([term], before, "{t,j}")))
    else:
        g = found.gradient([term], before, "{t,j}")
        lines.append(Line("g_{t,j}", g))
        step = f"- {times(term.rate, 'g_{t,j}')}"
    lines.append(Line(after, f"{before} {step}", when=f"for j = 1 to {n}"))
    end = f"W_{{t,{n}}}"
    first = setting.online and (rule.order == "decay_first" or decays.none)
    first = first and not _averages(setting)
    return Update("" if first else f"+ {end} - W_{{t,0}}", tuple(lines), whole=end if first else "")


def _factored(
    setting: EquationSetting, found: GradientFormula, terms: list[AssociationTerms], decays: Decays
) -> str:
    """The update as papers of the delta rule have it: a matrix times the past, plus a write."""
    rule = setting.rule
    plain = rule.memory.is_linear and found.slope == 1 and found.granularity != "value"
    steps = rule.algorithm.local and not rule.algorithm.sequential
    if not (plain and steps and setting.online and rule.retention.linked is None):
        return ""
    if _averages(setting) or rule.algorithm.erases:
        return ""
    first = rule.order == "decay_first"
    if decays.right and not first:
        return ""
    feature, erase, write = found.memory.feature, [], []
    for term in terms:
        along, rate = feature(term.write), term.rate
        if rate and found.granularity == "key":
            along, rate = rf"({rate} \odot {along})", ""
        along = raised(along)
        if term.read:
            erase.append(times(rate, f"{along} {feature(term.read)}"))
        if term.value:
            write.append(times(rate, f"{along} {term.value}"))
    if not erase:
        return ""
    identity = "I" if first else decays.identity
    past = decays("W_{t-1}") if first else "W_{t-1}"
    return f"({identity} - {' - '.join(erase)}) {past} + {' + '.join(write)}"


def _places(setting: EquationSetting, lines: list[Line]) -> Iterator[Line]:
    """The lines that say where a chunk begins and what a sweep is, where that is asked."""
    used = " ".join(f"{line.left} {line.right} {line.when}" for line in lines)
    if r"\hat{W}" in used:
        n = setting.refine
        told_ = f"then, {n} time{'s' if n > 1 else ''} over, W_{{t-1}} as those gradients make it"
        yield Line(r"\hat{W}_{t-1}", "W_r", when=told_)
    if "_r" in used or "r+1" in used or "t-r" in used or r"\hat{W}" in used:
        C = "C" if setting.chunk is None else str(setting.chunk)
        when = f"the last token before the chunk of {C} that holds t"
        if setting.chunk is None:
            when = "the last token before the chunk of C tokens that holds t; C = 1 is online"
        first = "t-1" if C == "1" else rf"{C} \lfloor (t-1)/{C} \rfloor"
        yield Line("r", first, when=when)


def _sources(rule, axis: str) -> tuple[str, ...]:
    part = getattr(rule, axis)
    return part.sources() if declares(part, axis, "sources") else ()
