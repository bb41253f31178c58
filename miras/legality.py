"""Which combinations of parts have a meaning, and why the others have none.

Each entry is a condition and the sentence that refuses a rule without it: what was asked, why it
has no meaning, and what to take instead. docs/legality.md is made from these.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax

from miras.errors import ConfigError
from miras.memory import Memory

if TYPE_CHECKING:
    from miras.rule import Rule

Verdict = tuple[bool, str]


def of_rule(rule: "Rule") -> Iterator[Verdict]:
    """All conditions on a rule's parts."""
    yield from _order(rule)
    yield from _kv(rule)
    yield from _algorithm(rule)
    yield from _granularity(rule)
    yield from _memory(rule)


def of_semantics(rule: "Rule", refine: int, exact: bool) -> Iterator[Verdict]:
    """All conditions on `refine` and `exact` under a rule."""
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield (
        isinstance(refine, int) and not isinstance(refine, bool) and refine >= 0,
        f"refine={refine!r} must be a whole number of at least 0.",
    )
    yield (
        not (refine and exact),
        f"refine={refine} approaches the online rule, which exact=True already is: take one.",
    )
    if refine:
        yield (
            rule.retention.linked != "chunk",
            f"refine={refine} evaluates W after every token, but retention {kinds['retention']!r} "
            "has link_every='chunk': use link_every='token'.",
        )
        yield (
            algorithm.window == 1 and algorithm.acts == "token",
            f"refine={refine} moves each token's gradient to its own W, but algorithm "
            f"{kinds['algorithm']!r} takes windows of tokens, or acts once a chunk, at one "
            "snapshot: use window=1 and every='token', or refine=0.",
        )
        yield (
            kinds["algorithm"] not in ("newton", "nonparametric")
            and not _writes_itself(rule.memory),
            f"refine={refine} has nothing to refine: {kinds['memory']!r} under "
            f"{kinds['algorithm']!r} writes the same at any snapshot: use refine=0.",
        )
        yield (
            rule.read == "token",
            f"refine={refine} follows the memory inside the chunk, read='snapshot' does not: use "
            "read='token'.",
        )
    if exact:
        yield (
            rule.memory.is_linear and rule.bias.slope is not None,
            f"exact=True has a closed form for a linear memory with a quadratic bias, not for "
            f"{kinds['memory']!r} with {kinds['bias']!r}: use memory 'matrix' with bias 'l2' or "
            "'dot', or refine=n.",
        )
        yield (
            rule.retention.linked is None,
            f"exact=True has a closed form for linear retention, not for {kinds['retention']!r}: "
            "use 'none' or 'l2', or refine=n.",
        )
        yield (
            algorithm.linear and algorithm.window == 1 and not rule.forms_weights,
            f"exact=True has a closed form for gd, momentum, nesterov, multi_step and implicit "
            f"(with decays per channel: all but momentum), not for {kinds['algorithm']!r} here: "
            "use chunk=1.",
        )
        yield (
            rule.read == "token",
            "exact=True knows no chunk, so read='snapshot' has no meaning: use read='token'.",
        )


def _order(rule: "Rule") -> Iterator[Verdict]:
    if rule.order == "learn_first":
        return
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield (
        rule.retention.linked is None,
        "order='decay_first' takes the gradient at alpha_t W, which retention "
        f"{kinds['retention']!r} does not define since its W is not linear in its state: use "
        "order='learn_first', or retention 'none' or 'l2'.",
    )
    yield (
        algorithm.window == 1 and algorithm.acts == "token",
        "order='decay_first' takes each token's gradient at its own decay, but algorithm "
        f"{kinds['algorithm']!r} takes windows of tokens, or acts once a chunk: use "
        "order='learn_first'.",
    )


def _kv(rule: "Rule") -> Iterator[Verdict]:
    kinds = rule.kinds()
    is_kv = kinds["memory"] == "kv"
    yield (
        is_kv == (kinds["algorithm"] == "nonparametric"),
        f"memory {kinds['memory']!r} with algorithm {kinds['algorithm']!r}: 'kv' keeps all tokens "
        "and needs 'nonparametric', which fits no other memory.",
    )
    if is_kv:
        yield (
            kinds["bias"] == "l2" and kinds["retention"] == "none",
            f"memory 'kv' is the minimiser of a kernel-weighted l2 bias over tokens that it keeps: "
            f"use bias 'l2' and retention 'none', not {kinds['bias']!r} and "
            f"{kinds['retention']!r}.",
        )
        yield (
            rule.order == "learn_first" and rule.read == "token",
            "memory 'kv' decays nothing and reads after each token: use order='learn_first' and "
            "read='token'.",
        )


def _algorithm(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm = rule.kinds(), rule.algorithm
    least_squares = rule.memory.is_linear and kinds["bias"] == "l2"
    if kinds["algorithm"] in ("implicit", "newton"):
        yield (
            least_squares,
            f"algorithm {kinds['algorithm']!r} is a closed form for least squares, so it needs a "
            f"linear memory with bias 'l2', not {kinds['memory']!r} with {kinds['bias']!r}.",
        )
    if kinds["algorithm"] == "newton":
        yield (
            kinds["retention"] in ("none", "l2")
            and getattr(rule.retention, "granularity", "head") == "head"
            and algorithm.granularity == "head",
            "algorithm 'newton' weighs past tokens by numbers per head: use retention 'none' or "
            "'l2' with granularity='head', and lr per head.",
        )
        yield (
            rule.order == "learn_first" and rule.read == "token",
            "algorithm 'newton' solves for W after every token, so order and read have no other "
            "meaning: use order='learn_first' and read='token'.",
        )
    if algorithm.sequential and algorithm.terms > 1:
        yield (
            rule.retention.linked is None,
            f"algorithm {kinds['algorithm']!r} takes its own steps inside a token in the linear "
            f"geometry: use retention 'none' or 'l2', not {kinds['retention']!r}.",
        )
    if algorithm.acts == "chunk":
        yield (
            rule.read == "snapshot",
            f"algorithm {kinds['algorithm']!r} with every='chunk' writes at the chunk's end, so "
            "reads inside it see the snapshot: set read='snapshot', or every='token'.",
        )
        yield (
            rule.retention.linked is None
            or (rule.retention.proximal and rule.retention.linked == "chunk"),
            f"algorithm {kinds['algorithm']!r} with every='chunk' needs a retention that is linear "
            "or proximal with link_every='chunk', not "
            f"{kinds['retention']!r}: use every='token'.",
        )


def _granularity(rule: "Rule") -> Iterator[Verdict]:
    kinds, algorithm = rule.kinds(), rule.algorithm
    yield (
        algorithm.granularity == "head" or rule.memory.is_linear,
        f"{kinds['algorithm']}.granularity={algorithm.granularity!r} scales rows or columns of a "
        f"linear memory's gradient, but memory is {kinds['memory']!r}: use 'head'.",
    )
    yield (
        algorithm.granularity == "head"
        or (
            (algorithm.lr_at == "gradient" and kinds["retention"] != "elastic_net")
            and not getattr(rule.retention, "coupled", False)
        ),
        f"{kinds['algorithm']}.granularity={algorithm.granularity!r}: with an algorithm whose lr "
        "scales the update, or a retention computed from lr, lr is per head: use 'head'.",
    )
    known = _sides(rule.memory)
    for gate in rule.retention.gates():
        yield (
            gate.side == "head" or gate.side in known,
            f"{kinds['retention']}.granularity={getattr(rule.retention, 'granularity', '')!r} "
            f"decays {gate.side} channels, which memory {kinds['memory']!r} has none of: use "
            f"{' or '.join(repr(s) for s in ('head', *sorted(known)))}.",
        )


def _memory(rule: "Rule") -> Iterator[Verdict]:
    kinds = rule.kinds()
    if _writes_itself(rule.memory):
        yield (
            kinds["bias"] == "dot" and rule.algorithm.lr_at == "gradient",
            f"memory {kinds['memory']!r} here is written by association, as a dot bias does: use "
            "bias 'dot' with gd or momentum, or write='gradient'.",
        )
        yield (
            rule.order == "learn_first" and rule.algorithm.terms == 1,
            f"memory {kinds['memory']!r} here is written without looking at its state: use "
            "order='learn_first' and one term a token.",
        )
    if getattr(rule.memory, "write", "") == "tied":
        yield (
            any(gate.side == "slot" for gate in rule.retention.gates()),
            f"memory {kinds['memory']!r} with write='tied' writes what its slots forget: use "
            "retention l2 with granularity='slot'.",
        )
    if getattr(rule.retention, "discretised", False):
        yield (
            rule.algorithm.lr_at == "gradient" and rule.algorithm.granularity == "head",
            "l2.discretised=True takes eta_t for the length of a step: use lr per head and gd, "
            "momentum, nesterov, implicit or multi_step.",
        )
    if getattr(rule.retention, "tied", False):
        yield (
            rule.memory.is_linear and rule.algorithm.takes_terms,
            "l2.tied=True writes along 1 - alpha_t in a linear memory: use memory 'matrix' and gd.",
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
