"""Each task's own format: an independent reader finds the answer, at the depth asked for."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.errors import ConfigError
from miras.tasks import MQAR, NIAH, BABILong, Material, SelectiveCopy, seeded
from miras.tasks.background import sentences, split_sentences
from miras.tasks.stories import read_stories
from tests.tasks.conftest import PEOPLE, Texts

fast = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 10_000)
depths = st.one_of(st.none(), st.floats(0, 1))


@fast
@given(
    pairs=st.integers(1, 12),
    spare=st.integers(0, 90),
    vocab=st.integers(26, 200),
    noise=st.booleans(),
    power=st.sampled_from([0.01, 0.5, 1.0]),
    depth=depths,
    seed=seeds,
)
def test_mqar_asks_each_key_once_and_the_value_stands_behind_its_first_mention(
    pairs, spare, vocab, noise, power, depth, seed
):
    length = 4 * pairs + spare
    task = MQAR(pairs=pairs, vocab=vocab, noise=noise, power=power)
    inputs, positions, targets = task.example(seeded(seed, "train"), length, depth)

    keys = inputs[positions]
    first = np.array([np.flatnonzero(inputs == key)[0] for key in keys])
    np.testing.assert_array_equal(targets, inputs[first + 1])
    assert len(set(keys)) == len(set(targets)) == pairs == len(positions)
    assert ((keys >= 1) & (keys < vocab // 2)).all()
    assert (targets >= vocab // 2).all()
    begin = round((depth or 0) * spare)
    assert sorted(first) == list(range(begin, begin + 2 * pairs, 2))
    assert (positions >= begin + 2 * pairs).all()
    assert not ((positions - begin) % 2).any()
    if not noise:
        asked = {*first, *(first + 1), *positions}
        assert not np.delete(inputs, sorted(asked)).any()


def test_mqar_places_queries_by_the_power_law():
    """Zoology: the place n of the queries' room has a probability of n^(a-1), up to a factor."""
    task, length, draws = MQAR(pairs=1, power=0.01, vocab=8), 42, 4000
    rows = [task.example(seeded(n, "train"), length, None) for n in range(draws)]
    counts = np.bincount([(row.positions[0] - 2) // 2 for row in rows], minlength=20)
    likely = np.arange(1.0, 21) ** -0.99
    likely /= likely.sum()
    deviation = np.sqrt(draws * likely * (1 - likely))
    assert len(counts) == 20
    assert (np.abs(counts - draws * likely) < 5 * deviation).all()


def test_mqar_draws_a_number_of_pairs_for_each_row():
    task = MQAR(pairs=(1, 3, 4), vocab=20)
    counts = {len(task.example(seeded(n, "train"), 16, None).targets) for n in range(40)}
    assert counts == {1, 3, 4}
    with pytest.raises(ConfigError, match="length=15 is too short for 4 pairs"):
        task.example(seeded(0, "train"), 15, None)


@fast
@given(
    tokens=st.integers(1, 10), spare=st.integers(0, 200), vocab=st.integers(4, 30), depth=depths,
    seed=seeds,
)  # fmt: skip
def test_selective_copy_wants_the_tokens_that_are_no_blanks(tokens, spare, vocab, depth, seed):
    length = 2 * tokens + spare
    task = SelectiveCopy(tokens=tokens, vocab=vocab)
    inputs, positions, targets = task.example(seeded(seed, "train"), length, depth)
    context, marks = inputs[: length - tokens], inputs[length - tokens :]
    assert (marks == vocab - 1).all()
    assert not (context == vocab - 1).any()
    np.testing.assert_array_equal(targets, context[context > 0])
    np.testing.assert_array_equal(positions, np.arange(length - tokens, length))
    if depth is not None:
        window = max(tokens, len(context) // 4)
        begin = round(depth * (len(context) - window))
        places = np.flatnonzero(context)
        assert begin <= places.min()
        assert places.max() < begin + window


def spoken(tokenizer, row):
    """What is read before the answer, and the answer."""
    before = tokenizer.decode(row.inputs[: row.positions[0] + 1])
    return before, tokenizer.decode(row.targets)


@pytest.mark.parametrize("form", ["passkey", "number", "word", "uuid"])
def test_niah_hides_one_needle_at_the_depth(form, opened, tokenizer):
    what = {"passkey": "number"}.get(form, form)
    values = {
        "number": r"\d{7}",
        "word": r"[a-z]{6}-[a-z]{6}",
        "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
    }
    longest = 120  # bytes of a sentence of the background

    @fast
    @given(length=st.integers(450, 1500), depth=depths, seed=seeds)
    def check(length, depth, seed):
        row = opened("niah", f"form={form}").example(seeded(seed, "train"), length, depth)
        assert row.inputs[0] == tokenizer.bos_id
        text, answer = spoken(tokenizer, row)
        ((key, value),) = re.findall(
            rf"One of the special magic {what}s for (\S+) is: ({values[what]})\.\n", text
        )
        assert answer == f" {value}"
        context = re.fullmatch(
            rf"(?s)A special magic {what} is hidden .* quiz you about the {what} afterwards\.\n"
            rf"(.*)\nWhat is the special magic {what} for {key} mentioned in the provided text\? "
            rf"The special magic {what} for {key} mentioned in the provided text is",
            text,
        )[1]
        before, behind = re.split(r"One of the special .*\n", context)
        assert value not in before + behind
        if depth is not None:
            room = len((before + behind).encode())
            assert abs(len(before.encode()) - depth * room) <= longest
        if form == "passkey":
            noise = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
            assert before + behind in (noise + "There and back again.\n") * 30

    check()


def test_numbers_have_the_digits_asked_for(words, tokenizer):
    material = Material(tokenizer, lambda: Texts(), "train")
    row = NIAH(digits=3).open(material).example(seeded(0, "train"), 400, 0.5)
    assert re.fullmatch(r" \d{3}", spoken(tokenizer, row)[1])


def test_babilong_hides_a_storys_facts_in_their_order(opened, tokenizer, babi):
    told = (babi / "qa1_people_train.txt").read_text()

    @fast
    @given(length=st.integers(300, 900), depth=depths, seed=seeds)
    def check(length, depth, seed):
        row = opened("babilong").example(seeded(seed, "train"), length, depth)
        text, answer = spoken(tokenizer, row)
        context, question = re.fullmatch(r"(?s)(.*)\nQuestion: (.*\?)\nAnswer:", text).groups()
        facts = re.findall(rf"(?:{'|'.join(PEOPLE)}) went to the \w+\.", context)
        person = re.fullmatch(r"Where is (\w+)\?", question)[1]
        (*_, where) = re.findall(rf"{person} went to the (\w+)\.", context)
        assert answer == f" {where}"
        story = re.sub(r"(?m)^\d+ (Where.*\n)?", "", told)
        assert "\n".join(facts) in story
        if depth is not None:
            together = "".join(f"{fact} " for fact in facts)
            before, behind = context.split(together)
            room = len((before + behind).encode())
            assert abs(len(before.encode()) - depth * room) <= 60

    check()


def test_babilong_scatters_facts_without_a_depth(opened, tokenizer):
    apart = 0
    for n in range(20):
        text, _ = spoken(tokenizer, opened("babilong").example(seeded(n, "train"), 800, None))
        apart += re.search(rf"went to the \w+\. (?!{'|'.join(PEOPLE)}|\n)", text) is not None
    assert apart >= 15  # a story's facts may fall side by side


@pytest.fixture
def lone(tmp_path):
    """A folder with a single file of twenty stories, each of one question of its own number."""
    lines = [f"1 Ada has {n} hats.\n2 How many? \t{n}\t1\n" for n in range(20)]
    (tmp_path / "qa7_counting_train.txt").write_text("".join(lines))
    return tmp_path


FORMATS = {  # a story of each of bAbI's tasks 4 to 10, of which only the form counts here
    4: ("The attic is south of the shed.", "What is south of the shed?", "attic"),
    5: ("Ada gave the hat to Bob.", "Who gave the hat to Bob?", "Ada"),
    6: ("Ada went to the shed.", "Is Ada in the attic?", "no"),
    7: ("Ada got the hat there.", "How many objects is Ada carrying?", "one"),
    8: ("Ada got the hat there.", "What is Ada carrying?", "hat,ball"),
    9: ("Ada is not in the shed.", "Is Ada in the shed?", "no"),
    10: ("Ada is either in the shed or the attic.", "Is Ada in the shed?", "maybe"),
}


@pytest.mark.parametrize("qa", FORMATS)
def test_babilong_reads_the_other_tasks_of_babi(qa, tmp_path, tokenizer):
    fact, question, answer = FORMATS[qa]
    story = f"1 {fact}\n2 {question} \t{answer}\t1\n"
    (tmp_path / f"qa{qa}_some-name_test.txt").write_text(story * 2)
    (tmp_path / f"qa{qa}_some-name_train.txt").write_text(story)
    material = Material(tokenizer, lambda: Texts([b"blah blah."]), "eval")
    example = BABILong(babi=str(tmp_path), qa=qa).open(material).example
    text, said = spoken(tokenizer, example(seeded(0, "eval"), 150, 0.5))
    assert fact in text
    assert text.endswith(f"\nQuestion: {question}\nAnswer:")
    assert said == f" {answer}"


def answers(task, role, tokenizer):
    material = Material(tokenizer, lambda: Texts([b"blah blah."]), role)
    example = task.open(material).example
    rows = [example(seeded(n, role), 100, None) for n in range(150)]
    return {int(tokenizer.decode(row.targets)) for row in rows}


def test_babilong_trains_on_some_stories_and_tests_with_others(lone, tokenizer):
    task = BABILong(babi=str(lone), qa=7)
    assert answers(task, "eval", tokenizer) == answers(task, "validation", tokenizer) == {0, 10}
    assert answers(task, "train", tokenizer) == set(range(20)) - {0, 10}
    (lone / "qa7_counting_test.txt").write_text("1 Ada has 99 hats.\n2 How many? \t99\t1\n")
    assert answers(task, "eval", tokenizer) == {99}
    assert answers(task, "train", tokenizer) == set(range(20))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "has no qa1_.*_train.txt or qa1_.*_test.txt: give the folder"),
        (
            b"once upon a time\n",
            "line 1, is 'once upon a time', which is not of the format of bAbI",
        ),
        (b"2 Ada went out.\n", "line 1, is '2 Ada went out.', which is not"),
        (b"1 Ada went out.\n", "has no question"),
        (b"1 \xff\n", "cannot be read"),
    ],
)
def test_files_that_are_not_babis_are_refused(tmp_path, tokenizer, content, told):
    if content is not None:
        (tmp_path / "qa1_a_train.txt").write_bytes(content)
    material = Material(tokenizer, lambda: Texts([b"a"]), "train")
    with pytest.raises(ConfigError, match=told):
        BABILong(babi=str(tmp_path)).open(material)
    with pytest.raises(ConfigError, match=r"needs bAbI's files: .*task.babi=FOLDER"):
        BABILong().open(material)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab. !?\n\té"), max_size=200))
def test_sentences_are_the_text_and_end_in_white_space(text):
    pieces = split_sentences(text.encode())
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece[-1].isspace() and piece.strip() for piece in pieces)


def test_sentences_without_an_end_are_cut():
    assert max(map(len, split_sentences(b"x" * 5000))) <= 403


def test_the_background_goes_on_through_all_documents():
    found = sentences(Texts([b"one. two.", b"", b"three."]), np.random.default_rng(0))
    some = [next(found).strip() for _ in range(9)]
    start = some.index("one.")
    assert (some * 2)[start : start + 6] == ["one.", "two.", "three."] * 2
    with pytest.raises(ConfigError, match="background text has no words"):
        next(sentences(Texts([b"", b" \n"]), np.random.default_rng(0)))


@pytest.mark.parametrize("folder", ["a\0b", "~no_such_user_/x", "n" * 5000, "caf\udce9"])
def test_a_folder_that_cannot_be_is_one_sentence(folder):
    with pytest.raises(ConfigError, match=r"task.babi=.* (cannot be read|has no qa1)"):
        read_stories(folder, 1, train=True)


def test_what_is_not_read_of_babis_folder_is_told(lone, caplog):
    path = next(iter(lone.glob("qa7_*")))
    (lone / path.name.replace("qa7_", "qa7_z")).write_bytes(path.read_bytes())
    path.write_bytes(path.read_text().encode("utf-16"))
    assert read_stories(str(lone), 7, train=True).stories
    assert "1 file read, 1 left out (1 other file of the task)" in caplog.text
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(ConfigError, match="is not text but a zip archive"):
        read_stories(str(lone), 7, train=True)
