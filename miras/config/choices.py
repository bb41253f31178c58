"""Names that are unknown: what they may have meant, and what there is to choose from."""

import difflib
from collections.abc import Callable, Iterable

from miras.errors import ConfigError

MOST = 12  # choices that one error lists
_NEAR = 3
_LONG = 200  # letters of a value


def shown(value: object) -> str:
    """A value as errors show it: its `repr`, cut where it is long."""
    try:
        return clipped(repr(value))
    except (ValueError, RecursionError):  # an integer of thousands of digits; deep nesting
        return f"this {type(value).__name__}"


def clipped(text: str) -> str:
    """A text as errors show it, without its middle where it is long."""
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
    """The error for a name that is not among the legal ones: the nearest match, then choices.

    Args:
        what: as the error calls such a name: "preset", "bias".
        name: as it was given.
        legal: names to choose from; at most 12 are listed, the nearest first.
        spellings: further names that the nearest match may be.
        see: where all are listed, for when there are more.
        said: how the nearest match is written.
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
    """The names that are spelled much like another, at most three.

    The nearest is first, but for one that begins another, or begins with it: a letter too many.
    """
    plain: dict[str, str] = {}
    for known in names:
        plain.setdefault(known.lower().lstrip("-"), known)
    text = str(name)[:_LONG].lower().lstrip("-")
    near = difflib.get_close_matches(text, plain, n=_NEAR)
    near.sort(key=lambda match: not (text.startswith(match) or match.startswith(text)))
    return [plain[match] for match in near]
