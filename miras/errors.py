"""The one exception of miras that is the user's to mend; the command line prints it in one line."""

import sys


class ConfigError(ValueError):
    """A configuration, path or value that cannot be used.

    The message is one sentence that names the offending value, the legal ones and the fix. The
    command line prints it and exits with code 2; as a ``ValueError`` it needs no import to catch.
    """


class UnknownPartError(ConfigError):
    """A name that no member of a registry has, which no other choice could make right."""


def fail(reason: object, code: int) -> int:
    """Tell the user a reason in one line on stderr; returns the exit code."""
    print("miras:", " ".join(str(reason).split()), file=sys.stderr)
    return code
