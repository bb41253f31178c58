"""Reads a command's arguments; one that is not known is answered with what it may have meant.

Fields are words, `steps=20`, and what belongs to a command is an option, `--out DIR`. One that is
written as the other, or with blanks, is answered with how to write it.
"""

import argparse
import itertools
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from miras.config.choices import clipped, shown, unknown
from miras.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Tells a wrong argument as any other wrong value: in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with what argparse found."""
        raise ConfigError(f"{clipped(message.removesuffix('.'))}: see `{self.prog} --help`.")

    @property
    def options(self) -> list[str]:
        """As they are written, `--out`."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    @property
    def takes_words(self) -> bool:
        """Whether fields are among its arguments."""
        return any(action.dest == "words" for action in self._actions)


def parse(parser: Parser, commands: Any, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of one command.

    Args:
        parser: of the whole command line.
        commands: the parser's `add_subparsers()`.
        argv: the words.

    Raises:
        ConfigError: for what is not known, with the nearest match.
    """
    for word in argv:
        _check_word(word)
    place = next((n for n, word in enumerate(argv) if not word.startswith("-")), len(argv))
    for word in argv[:place]:
        if word.startswith("--") and not _begins(word, parser.options):
            raise unknown("option", word, parser.options)
    name = argv[place] if place < len(argv) else None
    if name is not None and name not in commands.choices:
        raise unknown("command", name, commands.choices, said=lambda near: f"`miras {near}`")
    command = commands.choices.get(name, parser)
    for word in itertools.takewhile(lambda word: word != "--", argv[place + 1 :]):
        if word.startswith("--") and not _begins(word, command.options):
            raise _stray_option(word, command, argv)
    args, rest = parser.parse_known_args(argv)
    for word in rest:  # words behind options, which argparse hands back unread
        if word.startswith("-") or not command.takes_words:
            raise _stray_word(word, command)
        args.words.append(word)
    _refuse_blanks(getattr(args, "words", []))
    return args


def _check_word(word: str) -> None:
    """Refuse what no path and no text of a terminal can be."""
    try:
        possible = b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:  # half a character
        possible = False
    if not possible:
        raise ConfigError(f"{shown(word)} can be no argument: write it as a terminal has it.")


def _begins(word: str, options: Sequence[str]) -> bool:
    """Whether a word is an option, in whole or in short."""
    return any(option.startswith(word.partition("=")[0]) for option in options)


def _stray_word(word: str, parser: Parser) -> ConfigError:
    """The error for a word too many."""
    key, equals, value = word.partition("=")
    option = f"--{key.replace('_', '-')}"
    if equals and option in parser.options:
        return ConfigError(f"{word!r} is an option of {parser.prog}: write {option} {value}.")
    return ConfigError(f"unrecognised argument {clipped(word)!r}: see `{parser.prog} --help`.")


def _stray_option(word: str, parser: Parser, argv: Sequence[str]) -> ConfigError:
    """The error for an option that the command lacks."""
    key, equals, value = word.lstrip("-").partition("=")
    if not equals:
        after = next((b for a, b in itertools.pairwise(argv) if a == word), "-")
        value = "VALUE" if after.startswith("-") else after
    fields = _fields() if parser.takes_words else []
    field = key.replace("-", "_")
    if field in fields:
        return ConfigError(f"unknown option '--{key}': write {field}={value}.")
    return unknown(
        "option",
        f"--{key}",
        parser.options,
        spellings=[f"--{field}" for field in fields],
        said=lambda near: near if near in parser.options else f"{near[2:]}={value}",
    )


def _fields() -> list[str]:
    """The fields of a run, by their last names and by their paths."""
    from miras.cli.words import DEFAULT
    from miras.config import to_paths
    from miras.presets import preset
    from miras.train import RunConfig

    paths = to_paths(RunConfig(model=preset(DEFAULT)))
    return [*dict.fromkeys(path.rpartition(".")[2] for path in paths), *paths]


def _refuse_blanks(words: Sequence[str]) -> None:
    """Refuse `steps = 20`, `steps= 20` and `steps =20`."""
    for before, word, after in zip(["", *words], words, [*words[1:], ""]):
        key, equals, value = word.partition("=")
        ends = equals and not value and after and "=" not in after
        if ends or (equals and not key):
            told = f"{clipped(key or before or 'KEY')}={clipped(value or after or 'VALUE')}"
            raise ConfigError(f"{clipped(word)!r} stands alone: write {told} without spaces.")
