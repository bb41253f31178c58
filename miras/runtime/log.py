"""The log of miras, to which a line is written once: layers of a model repeat themselves."""

import functools
import logging

log = logging.getLogger("miras")


@functools.cache
def log_once(line: str) -> None:
    """Log a line that has not been logged before, at level INFO."""
    log.info(line)
