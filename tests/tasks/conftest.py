"""Small texts, bAbI files, tokenizers, and every registered task made of them."""

import functools

import numpy as np
import pytest
import tokenizers

from miras.config import override
from miras.data import make_tokenizer
from miras.tasks import Material, Task

PEOPLE, PLACES = ("Ada", "Bob", "Cleo"), ("attic", "cellar", "garden", "shed")
OPTIONS = {  # what makes each registered task small
    "mqar": ("vocab=40", "pairs=[2,5]"),
    "selective_copy": ("vocab=9", "tokens=4"),
    "niah": (),
    "babilong": (),
    "niah_multikey": ("keys=2",),
    "niah_multivalue": ("values=2",),
    "niah_multiquery": ("queries=2",),
    "variable_tracking": ("chains=2", "hops=2"),
    "common_words": ("words=2", "repeats=3", "uncommon_repeats=2"),
    "frequent_words": (),
}


class Texts(list):
    """Documents in memory."""

    fingerprint = "texts"


@pytest.fixture(scope="session")
def words():
    """Sentences of made-up words, none of which is a person, a place or a number."""
    rng = np.random.default_rng(0)
    some = ["".join(rng.choice(list("etaoinshr"), rng.integers(2, 7))) for _ in range(50)]
    sentence = lambda n: " ".join(rng.choice(some, n)) + rng.choice([". ", "!\n", "\n\n", "? "])  # noqa: E731
    return [
        "".join(sentence(n) for n in rng.integers(2, 9, count)) for count in rng.integers(1, 40, 30)
    ]


@pytest.fixture(scope="session")
def text(tmp_path_factory, words):
    """The same as files."""
    folder = tmp_path_factory.mktemp("text")
    for n, document in enumerate(words):
        (folder / f"{n:02}.txt").write_text(document)
    return folder


@pytest.fixture(scope="session")
def babi(tmp_path_factory):
    """Stories of people who move, in bAbI's format: 30 to train on and 10 to test with."""
    folder = tmp_path_factory.mktemp("babi")
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 10)):
        lines = []
        for _ in range(count):
            number, where = 1, {}
            for _ in range(3):
                for _ in range(2):
                    person, place = str(rng.choice(PEOPLE)), str(rng.choice(PLACES))
                    where[person] = place
                    lines.append(f"{number} {person} went to the {place}.")
                    number += 1
                person = str(rng.choice(list(where)))
                lines.append(f"{number} Where is {person}? \t{where[person]}\t{number - 1}")
                number += 1
        (folder / f"qa1_people_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def subwords(tmp_path_factory, words):
    """The path of a byte-level tokenizer of 400 pieces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, show_progress=False
    )
    model.train_from_iterator(words, trainer)
    model.save(str(path))
    return str(path)


@pytest.fixture(scope="session")
def make(babi):
    """Makes a small task of a kind, with other fields as given."""

    def made(kind: str, *assignments: str) -> Task:
        task = override(Task.registry.build(kind), *OPTIONS[kind])
        if kind == "babilong":
            task = override(task, f"babi={babi}")
        return override(task, *assignments)

    return made


@pytest.fixture(scope="session", params=["byte", "subwords"])
def tokenizer(request, subwords):
    return make_tokenizer("byte" if request.param == "byte" else subwords)


@pytest.fixture(scope="session")
def opened(make, words, tokenizer):
    """Opens a small task for a role."""

    @functools.cache
    def made(kind: str, *assignments: str, role: str = "train"):
        texts = Texts(document.encode() for document in words)
        return make(kind, *assignments).open(Material(tokenizer, lambda: texts, role))

    return made


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "cache")
