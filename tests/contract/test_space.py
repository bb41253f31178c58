"""The contract over the whole design space: pairwise, at random, and each option by itself.

`MIRAS_EXAMPLES=500 pytest tests/contract/test_space.py -k random` looks at more of it, at other
places each time.
"""

import importlib
import os

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from miras.backends import dispatch
from tests import selection
from tests.contract import contracts, space

EXAMPLES = os.environ.get("MIRAS_EXAMPLES")


COVER = {space.name(case): case for case in space.cover()}
# Every member and every other option; `make exhaustive` puts every two of them together.
SAMPLE = selection.covering({name: space.labels(case) for name, case in COVER.items()}, share=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", selection.sampled(COVER, SAMPLE))
@pytest.mark.sample(0.04)
def test_every_pair_of_members(name):
    rule, options = space.build(COVER[name])
    contracts.backends_agree(rule, options)
    contracts.split_is_whole(rule, options)


def places():
    """A place on an axis, by the number of its axis."""
    sizes = [len(options) for options in space.axes().values()]
    return st.integers(0, len(sizes) - 1).flatmap(
        lambda axis: st.tuples(st.just(axis), st.integers(0, sizes[axis] - 1))
    )


@pytest.mark.slow
@given(st.data())
@settings(
    max_examples=int(EXAMPLES or 1),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_random_legal_rules(data):
    start = data.draw(st.sampled_from(space.each_option()))
    case = space.mutate(start, data.draw(st.lists(places(), min_size=8, max_size=16)))
    rule, options = space.build(case)
    seed, chunk = data.draw(st.integers(0, 2**16)), data.draw(st.integers(1, 3))
    contracts.backends_agree(rule, options, seed, chunk)
    contracts.split_is_whole(rule, options, seed, chunk)


@pytest.mark.slow
@pytest.mark.parametrize("share", ["sample", pytest.param("rest", marks=pytest.mark.exhaustive)])
def test_the_inner_loss_falls_on_what_is_repeated(share):
    """A fifth of the options by default; many rules a test, since they share operations."""
    for place, (rule, options) in enumerate(each_rule()):
        if (place % 5 == 0) == (share == "sample") and descends(rule):
            contracts.loss_falls(rule, options)


@pytest.mark.slow
def test_a_second_call_is_not_traced_again(monkeypatch):
    scan = importlib.import_module("miras.sequence.scan")
    run, traces = dispatch.run, []

    def counted(rule, *call):
        traces.append(rule)
        return run(rule, *call)

    monkeypatch.setattr(dispatch, "run", counted)
    scan._run.clear_cache()
    for rule, options in each_rule():
        if rule.kinds()["memory"] != "kv":
            contracts.traced_once(rule, options, traces)


def each_rule():
    """A rule, and arguments of `scan`, for each option of each axis; each once."""
    return [space.build(case) for case in dict.fromkeys(space.each_option())]


def descends(rule) -> bool:
    """Whether a small lr makes a small step down the rule's own loss.

    It does not where what is written is no gradient; under the printed l_q link, of which a larger
    state is a smaller weight; and where lr is inside a sum whose length is then normalised away.
    """
    by_gradient = getattr(rule.memory, "write", "gradient") == "gradient"
    by_gradient = by_gradient and not getattr(rule.retention, "tied", False)
    return (
        by_gradient
        and rule.kinds()["memory"] != "kv"
        and getattr(rule.retention, "form", "") != "printed"
        and (rule.algorithm.linear or rule.algorithm.lr_at == "update")
    )


@pytest.mark.parametrize("names", [COVER, SAMPLE], ids=["cover", "sample"])
def test_every_member_is_in_the_space(names):
    covered = {member for name in names for member in space.build(COVER[name])[0].kinds().items()}
    assert covered == {(axis, kind) for axis in space.REGISTRIES for kind in space.kinds(axis)}
    labels = {label for case in COVER.values() for label in space.labels(case)}
    assert labels == {label for name in names for label in space.labels(COVER[name])}
