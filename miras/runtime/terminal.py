r"""Output that cannot be written ends nothing: it is dropped, or its letters are replaced.

A pipe whose reader has gone, a full disk and a terminal that was closed lose what is said from then
on. Letters that a stream's encoding lacks are written as `\xe9` and the like.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


class Tolerant:
    """A text stream that drops what another one cannot write.

    Attributes:
        dropped: whether something was.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.dropped = stream, False

    def write(self, text: str) -> int:
        """Write as much as can be."""
        self._try(self._write, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write lines as `write` does."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the stream."""
        self._try(self._stream.flush)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _try(self, do: Any, *args: Any) -> None:
        if self.dropped:
            return
        try:
            do(*args)
        except (OSError, ValueError):  # ValueError: it was closed
            self.dropped = True
            # What is left in its buffers is flushed when the interpreter ends: to nowhere.
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """Make the standard output and the standard error tolerant within the block."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            before = getattr(sys, name)
            if not isinstance(before, Tolerant):
                stack.callback(setattr, sys, name, before)
                # None: the process was started with the stream closed.
                own = Tolerant(io.StringIO() if before is None else before)
                setattr(sys, name, cast(TextIO, own))
                stack.callback(own.flush)
        yield


@contextlib.contextmanager
def tolerant(console: "Console") -> Iterator[None]:
    """As `tolerant_output`, and also for the file of a console."""
    with tolerant_output():
        before = console.file
        if isinstance(before, Tolerant):
            yield
            return
        console.file = cast(Any, Tolerant(cast(TextIO, before)))
        try:
            yield
        finally:
            console.file = before
