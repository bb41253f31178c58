"""Fixtures of the tests of commands: the text and the stories of the tests of tasks."""

from tests.tasks.conftest import babi, text, words

__all__ = ["babi", "text", "words"]
