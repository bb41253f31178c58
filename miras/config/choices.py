"""Errors for unknown names, with the nearest match and the legal names."""

import difflib
from collections.abc import Callable, Iterable

from miras.errors import ConfigError

MOST = 12  # legal names in one error
_NEAR = 3
_LONG = 200  # characters of a value


def shown(value: object) -> str:
    """The `repr` of a value, truncated if it is long, for error messages."""
    try:
        return clipped(repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits; deep nesting
        return f"this {type(value).__name__}"


def clipped(text: str) -> str:
    """A text without its middle if it is long, for error messages."""
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]}...{text[-_LONG // 4 :]}"


def unknown(
    what: str,
    name: object,
    legal: Iterable[str],
    *,
    spellings: Iterable[str] = (),
    see: str = "",
    said: Callable[[str], str] = repr,
) -> ConfigError:
    """The error for a name that is not legal, with the nearest match and the legal names.

    Args:
        what: what the name is of: "preset", "bias".
        name: as it was given.
        legal: the legal names; at most 12 are listed, the nearest first.
        spellings: further candidates for the nearest match.
        see: where all names are listed, if there are more.
        said: how the nearest match is formatted.
    """
    legal = list(legal)
    if not legal:
        return ConfigError(f"unknown {what} {shown(name)}: there are none.")
    near = nearest(name, [*legal, *spellings])
    first = [other for other in near if other in legal]
    listed = [*first, *(other for other in legal if other not in first)]
    rest = len(listed) - MOST
    more = f" and {rest} more{see and f', see {see}'}" if rest > 0 else ""
    choices = f"the legal ones are {', '.join(listed[:MOST])}{more}."
    if near:
        choices = f"did you mean {said(near[0])}? {choices[0].upper()}{choices[1:]}"
    return ConfigError(f"unknown {what} {shown(name)}: {choices}")


def nearest(name: object, names: Iterable[str]) -> list[str]:
    """At most three names that are spelled like another, the nearest first.

    Names that are a prefix of the other, or the reverse, precede all others.
    """
    plain: dict[str, str] = {}
    for known in names:
        plain.setdefault(known.lower().lstrip("-"), known)
    text = str(name)[:_LONG].lower().lstrip("-")
    near = difflib.get_close_matches(text, plain, n=_NEAR)
    near.sort(key=lambda match: not (text.startswith(match) or match.startswith(text)))
    return [plain[match] for match in near]
