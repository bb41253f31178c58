"""RULER's tasks of several answers: independent readers find them, and recall counts them."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.analysis.eval.answers import RowScore
from miras.analysis.eval.recall import share, with_recall
from miras.analysis.eval.results import cell_score, merge
from miras.config import override
from miras.data import DataConfig
from miras.errors import ConfigError
from miras.tasks import CommonWords, FrequentWords, seeded
from tests.tasks.test_formats import depths, seeds, spoken

fast = settings(max_examples=25, deadline=None)
VALUES = {"number": r"\d{7}", "uuid": r"[0-9a-f-]{36}", "word": r"[a-z]{6}-[a-z]{6}"}


def needles(text, what):
    """The keys and values of all complete needles in a text."""
    return re.findall(rf"One of the special magic {what}s for (\S+) is: ({VALUES[what]})\.\n", text)


@pytest.mark.parametrize("options", [(), ("form=uuid", "needles=true"), ("form=word", "keys=3")])
def test_one_key_of_many_is_asked_for(options, opened, tokenizer):
    what = "number" if not options else options[0].removeprefix("form=")

    @fast
    @given(length=st.integers(900, 1500), depth=depths, seed=seeds)
    def check(length, depth, seed):
        row = opened("niah_multikey", *options).example(seeded(seed, "train"), length, depth)
        text, answer = spoken(tokenizer, row)
        key = re.search(rf"What is the special magic {what} for (\S+) mentioned", text)[1]
        found = needles(text, what)
        assert [f" {value}" for own, value in found if own == key] == [answer]
        assert len(dict(found)) == len(found)
        if "needles=true" in options:
            assert len(found) > 3
            assert "special" in re.split(r"afterwards\.\n", text)[1][:160]
        else:
            assert len(found) == (3 if options else 2)

    check()


def test_only_the_asked_needle_is_at_the_depth(opened, tokenizer):
    """The others are anywhere: at depth 1 they are seldom all behind the middle."""
    apart = 0
    for n in range(20):
        row = opened("niah_multikey", "keys=4").example(seeded(n, "train"), 2000, 1.0)
        text, answer = spoken(tokenizer, row)
        context = text.partition("afterwards.\n")[2].partition("\nWhat is the")[0]
        places = [match.start() for match in re.finditer("One of the special", context)]
        assert len(places) == 4
        assert f"is:{answer}." in context[places[-1] - 400 :]
        apart += places[0] < len(context) / 2
    assert apart >= 12


@pytest.mark.parametrize("kind", ["niah_multivalue", "niah_multiquery"])
def test_all_values_are_asked_for(kind, opened, tokenizer, make):
    @fast
    @given(length=st.integers(700, 1500), depth=depths, seed=seeds)
    def check(length, depth, seed):
        row = opened(kind).example(seeded(seed, "train"), length, depth)
        text, answer = spoken(tokenizer, row)
        query = re.search(r"What are all the special magic numbers for (.*?) mentioned in", text)[1]
        found = needles(text, "number")
        assert len(found) == 2
        if kind == "niah_multivalue":
            assert {key for key, _ in found} == {query}
            wanted = [value for _, value in found]
        else:
            wanted = [dict(found)[key] for key in re.split(", and |, ", query)]
        assert answer == f" {', '.join(wanted)}"
        assert list(make(kind).references(answer)) == wanted
        assert text.endswith(
            f" The special magic numbers for {query} mentioned in the provided text are"
        )

    check()


def test_needles_have_another_order_than_the_question(opened, tokenizer):
    alike = 0
    for n in range(20):
        row = opened("niah_multiquery").example(seeded(n, "train"), 700, 0.5)
        text, answer = spoken(tokenizer, row)
        alike += [value for _, value in needles(text, "number")] == answer.strip().split(", ")
    assert 3 <= alike <= 17


@pytest.mark.parametrize("background", ["noise", "text"])
def test_variables_are_tracked_through_their_chain(background, opened, tokenizer, make):
    task = "variable_tracking", "hops=3", "chains=3", f"background={background}"

    @fast
    @given(length=st.integers(800, 1500), depth=depths, seed=seeds)
    def check(length, depth, seed):
        row = opened(*task).example(seeded(seed, "train"), length, depth)
        text, answer = spoken(tokenizer, row)
        value = {}
        for name, source in re.findall(r"VAR ([A-Z]{5}) = (?:VAR )?([A-Z]{5}|\d{5})\n", text):
            assert name not in value
            value[name] = value.get(source, source)  # a KeyError's stand-in is seen below
        asked = re.search(r"assigned the value (\d{5}) in the text above", text)[1]
        assert len(value) == 12
        assert sorted(Counter(value.values()).values()) == [4, 4, 4]
        wanted = [name for name in value if value[name] == asked]
        assert answer == f" {' '.join(wanted)}"
        assert list(make(*task).references(answer)) == wanted
        assert f" 4 variables are assigned the value {asked}, they are:" in text

    check()


@pytest.mark.parametrize(("repeats", "others"), [(3, 2), (5, 1)])
def test_common_words_are_the_most_frequent_of_the_list(repeats, others, opened, tokenizer, make):
    task = "common_words", "words=3", f"repeats={repeats}", f"uncommon_repeats={others}"

    @fast
    @given(length=st.integers(660, 1500), seed=seeds)
    def check(length, seed):
        row = opened(*task).example(seeded(seed, "train"), length, None)
        text, answer = spoken(tokenizer, row)
        listed = text.partition("appear most often.\n")[2].partition("\nQuestion")[0]
        numbers, entries = zip(*re.findall(r"(\d+)\. ([a-z]+) ", listed), strict=True)
        assert [int(n) for n in numbers] == list(range(1, len(numbers) + 1))
        counts = Counter(entries)
        assert {word for word, n in counts.items() if n == repeats} == set(answer.split())
        below = sorted(n for word, n in counts.items() if word not in answer.split())
        assert set(below[1:]) <= {others}
        assert make(*task).references(answer) == tuple(w for w in counts if counts[w] == repeats)

    check()


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.5])
def test_frequent_words_differ_in_number_and_follow_the_power_law(alpha, opened, tokenizer):
    @fast
    @given(length=st.integers(1600, 3000), seed=seeds)
    def check(length, seed):
        row = opened("frequent_words", f"alpha={alpha}").example(seeded(seed, "train"), length, 0)
        text, answer = spoken(tokenizer, row)
        coded = text.partition("coded words. ")[2].partition("\nQuestion")[0]
        counts = Counter(re.findall(r"(?<![a-z])[a-z]{6}(?= )", coded))
        (first, a), (second, b), (third, c), *rest = counts.most_common()
        assert a > b > c > max([n for _, n in rest], default=0)
        assert answer == f" {first} {second} {third}"
        assert abs(a / b - 1.5**alpha) < 1.5**alpha / b + 1 / b

    check()


def test_frequencies_are_those_of_ruler():
    """`int(N k^-alpha / zeta(alpha))`, with zeta(2) = pi^2 / 6."""
    counts = FrequentWords().counts(1000)
    wanted = [int(1000 * 6 / np.pi**2 / k**2) for k in range(1, 25)]
    assert counts.tolist() == [n for n in wanted if n]
    least = FrequentWords().least
    for total in (least, least + 1, 2 * least, 5 * least):
        assert len(set(FrequentWords().counts(total)[1:5].tolist())) == 4
    short = FrequentWords().counts(least - 1)
    assert len(short) < 5 or len(set(short[1:5].tolist())) < 4


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["task=niah_multikey", "task.keys=0"], "task.keys=0 must be at least 1"),
        (["task=niah_multivalue", "task.values=1"], "task.values=1 must be at least 2"),
        (["task=niah_multiquery", "task.queries=1"], "task.queries=1 must be at least 2"),
        (["task=variable_tracking", "task.chains=0"], r"task.chains=0 must lie in \[1, 100\]"),
        (["task=variable_tracking", "task.hops=0"], r"task.hops=0 must lie in \[1, 100\]"),
        (["task=common_words", "task.words=0"], r"task.words=0 must lie in \[1, 1000\]"),
        (["task=common_words", "task.repeats=3"], "task.repeats=3 must be larger than .*=3"),
        (["task=frequent_words", "task.alpha=1"], r"task.alpha=1.0 must lie in \[1.5, 3.5\]"),
        (["task=niah", "task.lengths=[]"], "task.lengths=.* is empty"),
        (["task=niah", "task.lengths=[0]"], "task.lengths=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(assignments, told):
    with pytest.raises(ConfigError, match=told):
        override(DataConfig(), *assignments)


def test_too_few_values_are_told(opened):
    with pytest.raises(ConfigError, match=r"task.digits has too few numbers for 12"):
        opened("niah_multivalue", "digits=1", "values=12").example(seeded(0, "train"), 9999, None)


def test_rows_have_one_of_several_lengths_and_padding(opened, make):
    task = make("mqar", "lengths=[32,48]")
    rows = [task.row(opened("mqar"), seeded(n, "train"), 64) for n in range(20)]
    assert {row.inputs.shape for row in rows} == {(64,)}
    last = {int(np.flatnonzero(row.inputs)[-1]) for row in rows}
    assert max(last) == 47
    assert min(last) < 32
    for row in rows:
        assert row.positions[-1] < 48
    with pytest.raises(ConfigError, match=r"task.lengths=48 is larger than data.sequence=40"):
        task.row(opened("mqar"), seeded(0, "train"), 40)


def test_recall_is_the_share_of_answers_in_a_completion():
    assert share(["12", "345"], " 345 and 9") == 0.5
    assert share(["AB"], "xabx") == 1.0


def test_recall_is_of_the_completions_of_the_rows_contexts(opened, tokenizer, make):
    task = make("niah_multivalue")
    rows = [opened("niah_multivalue").example(seeded(n, "eval"), 700, 0.5) for n in range(3)]
    answers = [tokenizer.decode(row.targets) for row in rows]
    said = [answers[0], f"no: {answers[1].split(', ')[1]}", "neither"]
    asked = []

    def complete(contexts, length):
        asked.extend(contexts)
        assert length == 2 * max(len(row.targets) for row in rows)
        return said

    scores = [RowScore(3, 4)] * 3
    found = with_recall(scores, task, rows, complete, tokenizer)
    assert [score.recall for score in found] == [1.0, 0.5, 0.0]
    for context, row in zip(asked, rows, strict=True):
        np.testing.assert_array_equal(np.append(context, row.targets[:-1]), row.inputs)
    cell = merge([cell_score(found), cell_score([RowScore(4, 4, 1.0)])])
    assert (cell.recall, cell.examples, cell.exact) == (0.625, 4, 1)
    deviation = np.std([1, 0.5, 0, 1], ddof=1) / 2
    np.testing.assert_allclose(cell.recall_interval, [0.625 - 1.959964 * deviation, 1.0], atol=1e-9)
    assert {"recall", "recall_low", "recall_high"} <= set(cell.plain())
    assert cell_score(scores).recall is None
    assert with_recall(scores, make("niah"), rows, complete, tokenizer) == scores


def test_references_are_of_tasks_with_several_answers(make):
    kinds = ["niah_multivalue", "niah_multiquery", "variable_tracking", "common_words"]
    assert all(make(kind).references(" a") == ("a",) for kind in [*kinds, "frequent_words"])
    assert not make("niah_multikey").references(" a")
    assert CommonWords().references(" a b") == ("a", "b")
