"""The state's lines: W_t from the step, by the geometry of the retention."""

from collections.abc import Iterator
from typing import NamedTuple

from miras.analysis.equation.decays import Decays
from miras.analysis.equation.setting import EquationSetting
from miras.parts.formula import Line, RetentionFormula


class Update(NamedTuple):
    """A step.

    Attributes:
        step: LaTeX of U_t with its sign.
        lines: what it is computed from.
        whole: LaTeX of W_t where the step is not added to the decayed weights.
        factored: LaTeX of W_t in another form; "" for none.
    """

    step: str
    lines: tuple[Line, ...]
    whole: str = ""
    factored: str = ""


def state_lines(
    setting: EquationSetting, update: Update, kept: RetentionFormula, decays: Decays
) -> Iterator[Line]:
    """W_t, and the dual state where there is one."""
    retention, acts = setting.rule.retention, setting.rule.algorithm.acts
    new = update.whole or f"{decays('W_{t-1}')} {update.step}"
    once = setting.chunk != 1
    last, others = "at a chunk's last token", "at its other tokens"
    if retention.linked is None or (kept.link is None and kept.prox is None):
        if acts == "chunk" and once:
            yield Line("W_t", new, when=last)
            yield Line("W_t", decays("W_{t-1}"), when=others)
            return
        yield Line("W_t", new)
        if update.factored:
            yield Line("", update.factored)
        return
    by_chunk = retention.linked == "chunk" and once
    if kept.prox is not None:
        old = "W_r" if by_chunk else "W_{t-1}"
        yield Line("W_t", kept.prox(new, old, update.step), when=last if by_chunk else "")
        if by_chunk:
            yield Line("W_t", decays("W_{t-1}") if acts == "chunk" else new, when=others)
        return
    assert kept.link is not None
    yield Line("A_t", f"{decays('A_{t-1}')} {update.step}")
    if not by_chunk:
        yield Line("W_t", kept.link("A_t"))
        return
    yield Line("W_t", kept.link("A_t"), when="at a chunk's first token" if retention.lag else last)
    yield Line("W_t", new, when=others)
