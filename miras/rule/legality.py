"""Which rules and calls are valid: conditions across axes, which no single part can state.

Each condition says what must hold, why a rule without it is invalid, and what to take instead. What
one part needs of the others is in its `conditions` (`miras.parts.part.Part`). The smallest case of
each is in `miras.analysis.refusals`, which writes docs/legality.md.
"""

from collections.abc import Iterator

from miras.parts.part import Condition, RuleView, writes_along


def of_rule(rule: RuleView) -> Iterator[Condition]:
    """All conditions on a rule's parts."""
    yield from _order(rule)
    yield from _associations(rule)
    for part in (rule.memory, rule.algorithm, rule.retention, rule.bias):
        yield from part.conditions(rule)


def of_semantics(rule: RuleView, refine: int, exact: bool) -> Iterator[Condition]:
    """All conditions on `refine` and `exact` under a rule."""
    yield Condition(
        isinstance(refine, int) and not isinstance(refine, bool) and refine >= 0,
        f"refine={refine!r} must be a whole number of at least 0",
        "use refine=0 for none",
    )
    yield Condition(
        not (refine and exact),
        f"refine={refine} approaches the online rule, which exact=True already is",
        "use refine=0, or exact=False",
    )
    if refine or exact:
        yield Condition(
            not rule.algorithm.averaged,
            f"algorithm {rule.algorithm.kind!r} with averaged=True scales the sum of a "
            "chunk's steps, all taken at its snapshot, by each reader's position, which "
            f"{'exact=True' if exact else f'refine={refine}'} would take at other weights",
            f"use {'exact=False' if exact else 'refine=0'}, or averaged=False",
        )
    if refine:
        yield from _refine(rule, refine)
    if exact:
        yield from _exact(rule)


def of_call(rule: RuleView, terms: int | None, k_write: bool) -> Iterator[Condition]:
    """All conditions on several associations a token, and on keys of their own for writing.

    Args:
        rule: the rule.
        terms: R of keys [B, T, H, R, Dk]; None where they have no axis of terms.
        k_write: whether there are keys to write along.
    """
    memory, algorithm, retention = rule.memory, rule.algorithm, rule.retention
    parts = (memory, rule.bias, retention, algorithm)
    if k_write:
        yield writes_along(rule, "k_write")
        several = next((part for part in parts if part.association_count > 1), None)
        yield Condition(
            several is None,
            "k_write gives a token a key to write along, of which "
            f"{'' if several is None else repr(several.kind)} has one for each of its associations",
            "use keys without k_write, or retention 'l2'",
        )
    if terms is not None:
        takes = algorithm.takes_terms and algorithm.window == 1 and algorithm.lr_at == "gradient"
        yield Condition(
            takes and not memory.keeps_tokens,
            f"k has {terms} terms a token, which {algorithm.kind!r} does not take",
            "use gd, momentum, nesterov or multi_step",
        )
        yield Condition(
            not memory.associates and not any(part.one_association for part in parts),
            f"k has {terms} terms a token, but {memory.kind!r} with {retention.kind!r} "
            "here writes one association a token, of which the gates decide",
            "use keys [B, T, H, Dk]",
        )
        yield Condition(
            not algorithm.sequential or terms == algorithm.terms,
            f"k has {terms} terms a token, but {algorithm.kind}.steps={algorithm.terms}",
            f"use steps={terms}",
        )


def _associations(rule: RuleView) -> Iterator[Condition]:
    """Of a part that makes several associations of one, where others take them."""
    memory, algorithm = rule.memory, rule.algorithm
    parts = (rule.retention, memory, rule.bias, algorithm)
    several = next((part for part in parts if part.association_count > 1), None)
    if several is None:
        return
    alone = [part.kind for part in parts if part is not several and part.one_association]
    taker = alone[0] if alone else algorithm.kind
    yield Condition(
        not alone
        and algorithm.takes_terms
        and algorithm.window == 1
        and algorithm.lr_at == "gradient"
        and not algorithm.sequential
        and not memory.associates,
        f"{several.kind!r} makes {several.association_count} associations of a token's, which "
        f"{taker!r} does not take",
        "use gd, momentum, nesterov or two_rate_momentum, or retention 'l2'",
    )


def _refine(rule: RuleView, refine: int) -> Iterator[Condition]:
    memory, algorithm, retention = rule.memory, rule.algorithm, rule.retention
    yield Condition(
        retention.linked != "chunk",
        f"refine={refine} evaluates W after every token, but retention {retention.kind!r} has "
        "link_every='chunk'",
        "use link_every='token', or refine=0",
    )
    yield Condition(
        algorithm.window == 1 and algorithm.acts == "token",
        f"refine={refine} moves each token's gradient to its own W, but algorithm "
        f"{algorithm.kind!r} takes windows of tokens, or acts once a chunk, at one snapshot",
        "use window=1 and every='token', or refine=0",
    )
    yield Condition(
        not algorithm.online and algorithm.parametric and not memory.associates,
        f"refine={refine} has nothing to refine, since {memory.kind!r} under "
        f"{algorithm.kind!r} writes the same at any snapshot",
        "use refine=0",
    )
    yield Condition(
        rule.read == "token",
        f"refine={refine} follows the memory inside the chunk, which read='snapshot' does not",
        "use read='token', or refine=0",
    )


def _exact(rule: RuleView) -> Iterator[Condition]:
    memory, algorithm, retention = rule.memory, rule.algorithm, rule.retention
    yield Condition(
        memory.fits_linearly and rule.bias.slope is not None,
        "exact=True has a closed form for a linear memory with a quadratic bias, not for "
        f"{memory.kind!r} with {rule.bias.kind!r}",
        "use memory 'matrix' with bias 'l2' or 'dot', or refine=n",
    )
    yield Condition(
        retention.linked is None,
        f"exact=True has a closed form for linear retention, not for {retention.kind!r}",
        "use retention 'none' or 'l2', or refine=n",
    )
    yield Condition(
        algorithm.linear and algorithm.window == 1 and not forms_weights(rule),
        "exact=True has a closed form for gd, momentum, nesterov, multi_step and implicit (with "
        f"decays per channel: all but momentum and nesterov), not for {algorithm.kind!r} here",
        "use exact=False, with chunk=1 for the online rule",
    )
    yield Condition(
        not algorithm.erases,
        f"exact=True has a closed form for steps along gradients, but {algorithm.kind!r} also "
        "erases along inputs",
        "use exact=False, with chunk=1 for the online rule",
    )
    yield Condition(
        rule.read == "token",
        "exact=True knows no chunk, so read='snapshot' has no meaning",
        "use read='token'",
    )


def _order(rule: RuleView) -> Iterator[Condition]:
    if rule.order == "learn_first":
        return
    algorithm, retention = rule.algorithm, rule.retention
    yield Condition(
        retention.linked is None,
        f"order='decay_first' takes the gradient at alpha_t W, which retention "
        f"{retention.kind!r} does not define since its W is not linear in its state",
        "use order='learn_first', or retention 'none' or 'l2'",
    )
    yield Condition(
        algorithm.window == 1 and algorithm.acts == "token",
        "order='decay_first' takes each token's gradient at its own decay, but algorithm "
        f"{algorithm.kind!r} takes windows of tokens, or acts once a chunk",
        "use order='learn_first'",
    )


def forms_weights(rule: RuleView) -> bool:
    """Whether W_t has to be formed for each token, since it is not linear in the gradients."""
    if rule.retention.linked == "token":
        return True
    if rule.algorithm.acts == "chunk":
        return False
    per_channel = any(side != "head" for _, side in rule.retention.decays)
    return not rule.algorithm.linear or (per_channel and not rule.algorithm.local)
