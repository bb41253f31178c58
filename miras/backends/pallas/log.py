"""What kernels say in the log, once: layers of a model say the same."""

import functools
import logging

log = logging.getLogger("miras")


@functools.cache
def say(line: str) -> None:
    """A line that was not said before."""
    log.info(line)
