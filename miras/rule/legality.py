"""Which combinations of parts have a meaning, and why the others have none.

Each verdict is a condition, why a rule without it has no meaning, and what to take instead. The
smallest case of each refusal stands in `miras.analysis.refusals`, which writes docs/legality.md.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import jax

from miras.errors import ConfigError
from miras.memory import Memory

if TYPE_CHECKING:
    from miras.rule.rule import Rule


class Verdict(NamedTuple):
    """One condition on a rule, or on a call of `miras.scan` with it.

    Attributes:
        legal: whether it holds.
        why: what was asked and why it has no meaning.
        instead: what to take instead.
    """

    legal: bool
    why: str
    instead: str

    @property
    def reason(self) -> str:
        """Both in a sentence."""
        return f"{self.why}: {self.instead}."


def of_rule(rule: "Rule") -> Iterator[Verdict]:
    """All conditions on a rule's parts."""
    yield from _order(rule)
    yield from _kv(rule)
    yield from _algorithm(rule)
    yield from _averaged(rule)
    yield from _granularity(rule)
    yield from _memory(rule)


def of_semantics(rule: "Rule", refine: int, exact: bool) -> Iterator[Verdict]:
    """All conditions on `refine` and `exact` under a rule."""
    yield Verdict(
        isinstance(refine, int) and not isinstance(refine, bool) and refine >= 0,
        f"refine={refine!r} must be a whole number of at least 0",
        "use refine=0 for none",
    )
    yield Verdict(
        not (refine and exact),
        f"refine={refine} approaches the online rule, which exact=True already is",
        "use refine=0, or exact=False",
    )
    if refine or exact:
        yield Verdict(
            not rule.algorithm.averaged,
            f"algorithm {rule.kinds()['algorithm']!r} with averaged=True scales the sum of a "
            "chunk's steps, all taken at its snapshot, by each reader's position, which "
            f"{'exact=True' if exact else f'refine={refine}'} would take at other weights",
            f"use {'exact=False' if exact else 'refine=0'}, or averaged=False",
        )
    if refine:
        yield from _refine(rule, refine)
    if exact:
        yield from _exact(rule)


def of_call(rule: "Rule", terms: int | None, k_write: bool) -> Iterator[Verdict]:
    """All conditions on several associations a token, and on keys of their own for writing.

    Args:
        rule: the rule.
        terms: R of keys [B, T, H, R, Dk]; None where they have no axis of terms.
        k_write: whether there are keys to write along.
    """
    kinds, algorithm, retention = rule.kinds(), rule.algorithm, rule.retention
    if k_write:
        yield Verdict(
            rule.memory.is_linear and algorithm.window == 1 and algorithm.takes_terms,
            "k_write needs a linear memory, whose gradient is an outer product with the key, and "
            f"an algorithm without windows, not {kinds['memory']!r} with {kinds['algorithm']!r}",
            "use memory 'matrix' with gd, momentum, nesterov or multi_step",
        )
    if terms is not None:
        takes = algorithm.takes_terms and algorithm.window == 1 and algorithm.lr_at == "gradient"
        of_lr = kinds["retention"] == "elastic_net" or any(
            getattr(retention, name, False) for name in ("coupled", "discretised")
        )
        yield Verdict(
            takes and kinds["memory"] != "kv" and not of_lr,
            f"k has {terms} terms a token, each with its lr, which {kinds['algorithm']!r} with "
            f"{kinds['retention']!r} does not take",
            "use gd, momentum, nesterov or multi_step, and a retention that is not "
            "computed from lr, such as 'l2' with discretised=False",
        )
        yield Verdict(
            not _writes_itself(rule.memory) and not getattr(retention, "tied", False),
            f"k has {terms} terms a token, but {kinds['memory']!r} with {kinds['retention']!r} "
            "here writes one association a token, of which the gates decide",
            "use keys [B, T, H, Dk]",
        )
        yield Verdict(
            not algorithm.sequential or terms == algorithm.terms,
            f"k has {terms} terms a token, but {kinds['algorithm']}.steps={algorithm.terms}",
            f"use steps={terms}",
        )


def _refine(rule: "Rule", refine: int) -> Iterator[Verdict]:
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield Verdict(
        rule.retention.linked != "chunk",
        f"refine={refine} evaluates W after every token, but retention {kinds['retention']!r} has "
        "link_every='chunk'",
        "use link_every='token', or refine=0",
    )
    yield Verdict(
        algorithm.window == 1 and algorithm.acts == "token",
        f"refine={refine} moves each token's gradient to its own W, but algorithm "
        f"{kinds['algorithm']!r} takes windows of tokens, or acts once a chunk, at one snapshot",
        "use window=1 and every='token', or refine=0",
    )
    yield Verdict(
        kinds["algorithm"] not in ("newton", "nonparametric") and not _writes_itself(rule.memory),
        f"refine={refine} has nothing to refine, since {kinds['memory']!r} under "
        f"{kinds['algorithm']!r} writes the same at any snapshot",
        "use refine=0",
    )
    yield Verdict(
        rule.read == "token",
        f"refine={refine} follows the memory inside the chunk, which read='snapshot' does not",
        "use read='token', or refine=0",
    )


def _exact(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield Verdict(
        rule.memory.is_linear and rule.bias.slope is not None,
        "exact=True has a closed form for a linear memory with a quadratic bias, not for "
        f"{kinds['memory']!r} with {kinds['bias']!r}",
        "use memory 'matrix' with bias 'l2' or 'dot', or refine=n",
    )
    yield Verdict(
        rule.retention.linked is None,
        f"exact=True has a closed form for linear retention, not for {kinds['retention']!r}",
        "use retention 'none' or 'l2', or refine=n",
    )
    yield Verdict(
        algorithm.linear and algorithm.window == 1 and not rule.forms_weights,
        "exact=True has a closed form for gd, momentum, nesterov, multi_step and implicit (with "
        f"decays per channel: all but momentum and nesterov), not for {kinds['algorithm']!r} here",
        "use exact=False, with chunk=1 for the online rule",
    )
    yield Verdict(
        rule.read == "token",
        "exact=True knows no chunk, so read='snapshot' has no meaning",
        "use read='token'",
    )


def _order(rule: "Rule") -> Iterator[Verdict]:
    if rule.order == "learn_first":
        return
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield Verdict(
        rule.retention.linked is None,
        f"order='decay_first' takes the gradient at alpha_t W, which retention "
        f"{kinds['retention']!r} does not define since its W is not linear in its state",
        "use order='learn_first', or retention 'none' or 'l2'",
    )
    yield Verdict(
        algorithm.window == 1 and algorithm.acts == "token",
        "order='decay_first' takes each token's gradient at its own decay, but algorithm "
        f"{kinds['algorithm']!r} takes windows of tokens, or acts once a chunk",
        "use order='learn_first'",
    )


def _kv(rule: "Rule") -> Iterator[Verdict]:
    kinds = rule.kinds()
    is_kv = kinds["memory"] == "kv"
    yield Verdict(
        is_kv == (kinds["algorithm"] == "nonparametric"),
        f"memory {kinds['memory']!r} does not go with algorithm {kinds['algorithm']!r}, since 'kv' "
        "keeps all tokens and learns nothing, and every other memory has to",
        "use memory 'kv' with algorithm 'nonparametric', or neither",
    )
    if is_kv:
        yield Verdict(
            kinds["bias"] == "l2" and kinds["retention"] == "none",
            "memory 'kv' is the minimiser of a kernel-weighted l2 bias over tokens that it keeps, "
            f"not of {kinds['bias']!r} under {kinds['retention']!r}",
            "use bias 'l2' and retention 'none'",
        )
        yield Verdict(
            rule.order == "learn_first" and rule.read == "token",
            "memory 'kv' decays nothing and reads after each token",
            "use order='learn_first' and read='token'",
        )


def _algorithm(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm, retention = rule.kinds(), rule.algorithm, rule.retention
    if kinds["algorithm"] in ("implicit", "newton"):
        yield Verdict(
            rule.memory.is_linear and kinds["bias"] == "l2",
            f"algorithm {kinds['algorithm']!r} is a closed form for least squares in a linear "
            f"memory, not for {kinds['memory']!r} with {kinds['bias']!r}",
            "use memory 'matrix' with bias 'l2', or algorithm 'gd'",
        )
    if kinds["algorithm"] == "newton":
        yield Verdict(
            kinds["retention"] in ("none", "l2")
            and getattr(retention, "granularity", "head") == "head"
            and algorithm.granularity == "head",
            "algorithm 'newton' weighs past tokens by one number per head, not by channel or in "
            f"the geometry of {kinds['retention']!r}",
            "use retention 'none' or 'l2', and granularity='head' in both parts",
        )
        yield Verdict(
            rule.order == "learn_first" and rule.read == "token",
            "algorithm 'newton' solves for W after every token, so order and read have no other "
            "meaning",
            "use order='learn_first' and read='token'",
        )
    if algorithm.sequential and algorithm.terms > 1:
        yield Verdict(
            retention.linked is None,
            f"algorithm {kinds['algorithm']!r} takes its own steps inside a token in the linear "
            f"geometry, not in that of {kinds['retention']!r}",
            "use retention 'none' or 'l2', or algorithm 'gd'",
        )
    if algorithm.acts == "chunk":
        yield Verdict(
            rule.read == "snapshot",
            f"algorithm {kinds['algorithm']!r} with every='chunk' writes at the chunk's end, so "
            "reads inside it see the snapshot",
            "use read='snapshot', or every='token'",
        )
        yield Verdict(
            retention.linked is None or (retention.proximal and retention.linked == "chunk"),
            f"algorithm {kinds['algorithm']!r} with every='chunk' adds its step once a chunk, to a "
            f"state that is linear until then, which that of {kinds['retention']!r} here is not",
            "use every='token', or a retention that is linear, or proximal with link_every='chunk'",
        )


def _averaged(rule: "Rule") -> Iterator[Verdict]:
    if not rule.algorithm.averaged:
        return
    kinds, retention = rule.kinds(), rule.retention
    yield Verdict(
        retention.linked is None and not retention.gates(),
        f"algorithm {kinds['algorithm']!r} with averaged=True counts W_t from the chunk's "
        f"snapshot, W_r + r_t sum_s U_s, of which retention {kinds['retention']!r} would "
        "forget a part",
        "use retention 'none', or averaged=False",
    )


def _granularity(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm, retention = rule.kinds(), rule.algorithm, rule.retention
    known = _sides(rule.memory)
    yield Verdict(
        algorithm.granularity == "head"
        or (rule.memory.is_linear and algorithm.granularity in known),
        f"{kinds['algorithm']}.granularity={algorithm.granularity!r} scales rows or columns of a "
        f"linear memory's gradient, which memory {kinds['memory']!r} has none of",
        "use granularity='head', or memory 'matrix'",
    )
    yield Verdict(
        algorithm.granularity == "head"
        or (algorithm.lr_at == "gradient" and algorithm.window == 1),
        f"{kinds['algorithm']}.granularity={algorithm.granularity!r} scales each token's gradient, "
        f"but the lr of {kinds['algorithm']!r} here scales a step or a window",
        "use granularity='head'",
    )
    of_lr = kinds["retention"] == "elastic_net" or getattr(retention, "coupled", False)
    yield Verdict(
        algorithm.granularity == "head" or not of_lr,
        f"{kinds['algorithm']}.granularity={algorithm.granularity!r} gives each channel an lr of "
        f"its own, but retention {kinds['retention']!r} is computed from one lr per head",
        "use granularity='head'",
    )
    for gate in retention.gates():
        sides = " or ".join(f"granularity={side!r}" for side in ("head", *sorted(known)))
        yield Verdict(
            gate.side == "head" or gate.side in known,
            f"{kinds['retention']}.granularity={getattr(retention, 'granularity', '')!r} decays "
            f"{gate.side} channels, which memory {kinds['memory']!r} has none of",
            f"use {sides}",
        )


def _memory(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm = rule.kinds(), rule.algorithm
    if _writes_itself(rule.memory):
        yield Verdict(
            kinds["bias"] == "dot" and algorithm.lr_at == "gradient" and algorithm.window == 1,
            f"memory {kinds['memory']!r} with write={getattr(rule.memory, 'write', '')!r} is "
            "written by association, as a dot bias does, each with its lr",
            "use bias 'dot' with gd or momentum, or write='gradient'",
        )
        yield Verdict(
            rule.order == "learn_first" and algorithm.terms == 1,
            f"memory {kinds['memory']!r} with write={getattr(rule.memory, 'write', '')!r} is "
            "written once a token, without a look at its state",
            "use order='learn_first' and algorithm 'gd', or write='gradient'",
        )
    if getattr(rule.memory, "write", "") == "tied":
        yield Verdict(
            any(gate.side == "slot" for gate in rule.retention.gates()),
            f"memory {kinds['memory']!r} with write='tied' writes what its slots forget, but "
            f"retention {kinds['retention']!r} here has no decay per slot",
            "use retention 'l2' with granularity='slot'",
        )
    if getattr(rule.retention, "discretised", False):
        yield Verdict(
            algorithm.lr_at == "gradient" and algorithm.granularity == "head",
            "l2.discretised=True takes eta_t for the length of a step, one for each head, which "
            f"the lr of {kinds['algorithm']!r} here is not",
            "use algorithm 'gd' with granularity='head', or discretised=False",
        )
    if getattr(rule.retention, "tied", False):
        yield Verdict(
            rule.memory.is_linear and algorithm.takes_terms,
            "l2.tied=True writes along 1 - alpha_t in a linear memory, whose gradient is an outer "
            f"product with the key, not {kinds['memory']!r} with {kinds['algorithm']!r}",
            "use memory 'matrix' with algorithm 'gd', or tied=False",
        )


def _writes_itself(memory: Memory) -> bool:
    return getattr(memory, "write", "gradient") != "gradient"


@functools.cache
def _sides(memory: Memory) -> frozenset[str]:
    """The sides that some weight of a memory has."""
    try:
        weights = jax.eval_shape(lambda: memory.init(jax.random.key(0), 8, 8))
    except ConfigError:  # a memory of other widths: gates are checked when it is called
        return frozenset()
    named = (memory.sides(name) for name in weights if name not in memory.fixed)
    return frozenset(side for sides in named for side in sides if side is not None)
