"""The exception for errors of the user, and how the command line prints an error."""

import re
import sys


class ConfigError(ValueError):
    """An invalid config, path or value.

    The message is one sentence that names the value, the legal ones and the fix. The command line
    prints it and exits with code 2. It is a ``ValueError``, so it can be caught without an import.
    """


class UnknownPartError(ConfigError):
    """A name that is not in a registry."""


def fail(reason: object, code: int) -> int:
    """Print the reason of a failure in one line on stderr, truncated if it is long.

    Returns:
        The exit code.
    """
    line = _LONG.sub(lambda word: f"{word[0][:100]}...{word[0][-40:]}", str(reason))
    line = " ".join(line.split())
    if len(line) > _MAX_LENGTH:
        line = f"{line[: _MAX_LENGTH // 2]} ... {line[-_MAX_LENGTH // 4 :]}"
    print("miras:", line, file=sys.stderr)
    return code


_MAX_LENGTH = 1800  # characters of a line
_LONG = re.compile(r"\S{200,}")  # a value or a path of thousands of characters
