"""The words of a command line that name a preset and set fields: `yaad width=64`."""

import argparse

from miras.errors import ConfigError

DEFAULT = "yaad"


def add_words(parser: argparse.ArgumentParser, text: str) -> None:
    """Let a command take a preset and assignments, as `args.words`."""
    parser.add_argument("words", nargs="*", metavar="[PRESET] [KEY=VALUE ...]", help=text)


def split(words: list[str]) -> tuple[str | None, list[str]]:
    """The preset, None where there is none, and the assignments.

    Raises:
        ConfigError: for two presets.
    """
    assignments = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise ConfigError(f"{names[1]!r} is a second preset, or lacks its '=': give key=value.")
    return (names[0] if names else None), assignments
