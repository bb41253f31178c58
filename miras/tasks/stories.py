"""Reads the stories and questions of the bAbI files."""

import hashlib
import pathlib
import re
from typing import NamedTuple

from miras.data.text.folders import LeftOut
from miras.data.text.sources import one_file
from miras.data.text.splitting import text_blocks
from miras.errors import ConfigError

_LINE = re.compile(r"(\d+) (.*)")
_HELD_OUT_EVERY = 10  # if there is a single file, every tenth story is held out


class Story(NamedTuple):
    """A question and the facts before it.

    Attributes:
        facts: sentences, in order, without the questions between them.
        question: as asked.
        answer: one word, or several between commas.
    """

    facts: tuple[str, ...]
    question: str
    answer: str


class Stories(NamedTuple):
    """The stories of one role, and a fingerprint of the content of the file."""

    stories: list[Story]
    fingerprint: str


def read_stories(folder: str, number: int, train: bool) -> Stories:
    """Read the stories of one of the twenty bAbI tasks.

    Training stories are in `qaN_*_train.txt`, held-out stories in `qaN_*_test.txt`. If only one of
    the files exists, every tenth of its stories is held out.

    Args:
        folder: of the bAbI files, such as `en` or `en-10k`.
        number: of the task, 1 to 20.
        train: whether to read training or held-out stories.

    Raises:
        ConfigError: the files do not exist or are not of the format of bAbI.
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
    content, stories = _read(paths)
    if not all(found.values()):
        stories = [story for n, story in enumerate(stories) if (n % _HELD_OUT_EVERY == 0) != train]
    questions = [question for story in stories for question in story]
    if not questions:
        raise ConfigError(f"{path} has no question for this split: give bAbI's text files.")
    return Stories(questions, hashlib.sha256(content).hexdigest())


def _read(paths: list[pathlib.Path]) -> tuple[bytes, list[list[Story]]]:
    """The content of the first of several files, and its stories."""
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
    stories: list[list[Story]] = []
    facts: list[str] = []
    for n, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is None or (match[1] != "1" and not stories):
            raise ConfigError(
                f"{path}, line {n}, is {line[:60]!r}, which is not of the format of bAbI, a "
                "number and a sentence: give bAbI's text files."
            )
        if match[1] == "1":
            stories.append([])
            facts = []
        sentence, *answer = match[2].split("\t")
        if answer:
            stories[-1].append(Story(tuple(facts), sentence.strip(), answer[0].strip()))
        else:
            facts.append(sentence.strip())
    return stories
