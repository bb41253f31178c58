"""Parses a command's arguments; an unknown argument raises ConfigError with the nearest match.

Config fields are overrides, `steps=20`; what belongs to a command is an option, `--out DIR`. If one
is written as the other, or with spaces, the error shows how to write it.
"""

import argparse
import itertools
import os
from collections.abc import Sequence
from typing import NoReturn

from miras.config.choices import clipped, shown, unknown
from miras.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises ConfigError instead of printing its usage.

    Attributes:
        commands: the parsers of its commands by name.
    """

    commands: "dict[str, Parser]" = {}  # noqa: RUF012 - never changed in place

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with argparse's message."""
        raise ConfigError(f"{clipped(message.removesuffix('.'))}: see `{self.prog} --help`.")

    @property
    def options(self) -> list[str]:
        """Its options as they are written, such as `--out`."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    @property
    def takes_command(self) -> bool:
        """Whether it takes another command after `--`."""
        return any(action.dest == "command" for action in self._actions)

    @property
    def takes_overrides(self) -> bool:
        """Whether it takes arguments `KEY=VALUE`."""
        return any(action.dest == "overrides" for action in self._actions)


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments of one command.

    Args:
        parser: of the whole command line, with `commands`.
        argv: the arguments.

    Raises:
        ConfigError: for an unknown command, option or argument, with the nearest match.
    """
    for word in argv:
        _check_encoding(word)
    index = next((n for n, word in enumerate(argv) if not word.startswith("-")), len(argv))
    for word in argv[:index]:
        if word.startswith("--") and not _is_option(word, parser.options):
            raise unknown("option", word, parser.options)
    name = argv[index] if index < len(argv) else None
    if name is not None and name not in parser.commands:
        raise unknown("command", name, parser.commands, said=lambda near: f"`miras {near}`")
    command = parser if name is None else parser.commands[name]
    for word in itertools.takewhile(lambda word: word != "--", argv[index + 1 :]):
        if word.startswith("--") and not _is_option(word, command.options):
            raise _unknown_option(word, command, argv)
    argv, after = _split(argv) if command.takes_command else (argv, None)
    args, rest = parser.parse_known_args(argv)
    if after is not None:
        args.command = after
    for word in rest:  # argparse does not parse positional arguments after options
        if word.startswith("-") or not command.takes_overrides:
            raise _unknown_argument(word, command)
        args.overrides.append(word)
    _check_spaces(getattr(args, "overrides", []))
    return args


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before and after `--`."""
    index = argv.index("--") if "--" in argv else len(argv)
    return list(argv[:index]), list(argv[index + 1 :])


def _check_encoding(word: str) -> None:
    """Raise for an argument that cannot be a path or a terminal's text."""
    try:
        valid = b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:  # half a character
        valid = False
    if not valid:
        raise ConfigError(
            f"argument {shown(word)} holds a character that no path or terminal can: remove it."
        )


def _is_option(word: str, options: Sequence[str]) -> bool:
    """Whether an argument is one of the options, or a prefix of one."""
    return any(option.startswith(word.partition("=")[0]) for option in options)


def _unknown_argument(word: str, parser: Parser) -> ConfigError:
    """The error for an argument too many."""
    key, equals, value = word.partition("=")
    option = f"--{key.replace('_', '-')}"
    if equals and option in parser.options:
        return ConfigError(f"{word!r} is an option of {parser.prog}: write {option} {value}.")
    return ConfigError(f"unrecognised argument {clipped(word)!r}: see `{parser.prog} --help`.")


def _unknown_option(word: str, parser: Parser, argv: Sequence[str]) -> ConfigError:
    """The error for an option that the command lacks."""
    key, equals, value = word.lstrip("-").partition("=")
    if not equals:
        after = next((b for a, b in itertools.pairwise(argv) if a == word), "-")
        value = "VALUE" if after.startswith("-") else after
    fields = _run_fields() if parser.takes_overrides else []
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


def _run_fields() -> list[str]:
    """The fields of a run's config, by their last names and by their paths."""
    from miras.cli.options import DEFAULT_PRESET
    from miras.config import to_paths
    from miras.presets import preset
    from miras.train import RunConfig

    paths = to_paths(RunConfig(model=preset(DEFAULT_PRESET)))
    return [*dict.fromkeys(path.rpartition(".")[2] for path in paths), *paths]


def _check_spaces(overrides: Sequence[str]) -> None:
    """Raise for `steps = 20`, `steps= 20` and `steps =20`."""
    for before, word, after in zip(["", *overrides], overrides, [*overrides[1:], ""]):
        key, equals, value = word.partition("=")
        ends = equals and not value and after and "=" not in after
        if ends or (equals and not key):
            fix = f"{clipped(key or before or 'KEY')}={clipped(value or after or 'VALUE')}"
            raise ConfigError(
                f"{clipped(word)!r} is not of the form key=value: write {fix} without spaces."
            )
