"""The bAbI files: stories with questions, as BABILong hides them in text."""

import hashlib
import pathlib
import re
from typing import NamedTuple

from miras.data.text.folders import LeftOut
from miras.data.text.sources import one_file
from miras.data.text.splitting import text_blocks
from miras.errors import ConfigError

_LINE = re.compile(r"(\d+) (.*)")
_EACH = 10  # of the stories of a lone file, one of so many is held out


class Story(NamedTuple):
    """One question, and what was told before it.

    Attributes:
        facts: sentences, in order, without the questions between them.
        question: as asked.
        answer: one word, or several between commas.
    """

    facts: tuple[str, ...]
    question: str
    answer: str


class Stories(NamedTuple):
    """The stories for one role, and a string that names the content of the file."""

    stories: list[Story]
    fingerprint: str


def read_stories(folder: str, number: int, train: bool) -> Stories:
    """The stories of one of bAbI's twenty tasks.

    Those to train on are of `qaN_*_train.txt` and the others of `qaN_*_test.txt`. Where there is
    only one of the two, every tenth story is kept from training and the others from testing.

    Args:
        folder: with bAbI's files, as in its `en` or `en-10k`.
        number: 1 to 20.
        train: which of the two.

    Raises:
        ConfigError: where the files are not there or not of bAbI's format.
    """
    try:
        root = pathlib.Path(folder).expanduser()
        found = {
            part: sorted(root.glob(f"qa{number}_*_{part}.txt")) if folder else []
            for part in ("train", "test")
        }
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"task.babi={folder!r} cannot be read ({error}): give the folder of bAbI's text files."
        ) from error
    paths = found["train" if train else "test"] or found["test" if train else "train"]
    if not paths:
        where = f"task.babi={folder!r} has no" if folder else "task babilong needs bAbI's files:"
        raise ConfigError(
            f"{where} qa{number}_*_train.txt or qa{number}_*_test.txt: give the folder of bAbI's "
            "text files by task.babi=FOLDER."
        )
    path = paths[0]
    content, told = _read(paths)
    if not all(found.values()):
        told = [story for n, story in enumerate(told) if (n % _EACH == 0) != train]
    stories = [question for story in told for question in story]
    if not stories:
        raise ConfigError(f"{path} has no question for this split: give bAbI's text files.")
    return Stories(stories, hashlib.sha256(content).hexdigest())


def _read(paths: list[pathlib.Path]) -> tuple[bytes, list[list[Story]]]:
    """The bytes of the first of some files, and its stories."""
    path, *others = paths
    file = one_file(
        path, others=[LeftOut(other.name, "other file of the task") for other in others]
    )
    try:
        text = b"".join(text_blocks(file)).decode("utf-8")
        return path.read_bytes(), _parse(text.splitlines(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): give bAbI's text files.") from error


def _parse(lines: list[str], path: pathlib.Path) -> list[list[Story]]:
    """The questions of each story. A line numbered 1 begins a story; a tab marks a question."""
    told: list[list[Story]] = []
    facts: list[str] = []
    for n, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is None or (match[1] != "1" and not told):
            raise ConfigError(
                f"{path}, line {n}, is {line[:60]!r} and not of bAbI's format, a number and a "
                "sentence: give bAbI's text files."
            )
        if match[1] == "1":
            told.append([])
            facts = []
        sentence, *answer = match[2].split("\t")
        if answer:
            told[-1].append(Story(tuple(facts), sentence.strip(), answer[0].strip()))
        else:
            facts.append(sentence.strip())
    return told
