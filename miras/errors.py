"""The one exception of miras that is the user's to mend; the command line prints it in one line."""

import re
import sys


class ConfigError(ValueError):
    """A configuration, path or value that cannot be used.

    The message is one sentence that names the offending value, the legal ones and the fix. The
    command line prints it and exits with code 2; as a ``ValueError`` it needs no import to catch.
    """


class UnknownPartError(ConfigError):
    """A name that no member of a registry has, which no other choice could make right."""


def fail(reason: object, code: int) -> int:
    """Tell the user a reason in one line on stderr, cut where it is long; returns the exit code."""
    line = _LONG.sub(lambda word: f"{word[0][:100]}...{word[0][-40:]}", str(reason))
    line = " ".join(line.split())
    if len(line) > _MOST:
        line = f"{line[: _MOST // 2]} ... {line[-_MOST // 4 :]}"
    print("miras:", line, file=sys.stderr)
    return code


_MOST = 1800  # letters of a line
_LONG = re.compile(r"\S{200,}")  # a value or a path of thousands of letters
