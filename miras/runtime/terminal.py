r"""Output streams that never raise: text that cannot be written is dropped or escaped.

Output to a pipe without a reader, a full disk or a closed terminal is dropped. Characters that the
encoding of a stream lacks are written as escapes such as `\xe9`.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


class TolerantStream:
    """A text stream that drops what the underlying stream cannot write.

    Attributes:
        dropped: whether any text was dropped.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.dropped = stream, False

    def write(self, text: str) -> int:
        """Write the text, as far as possible."""
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
            # The interpreter flushes the buffers when it ends: discard them.
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())
                os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_output() -> Iterator[None]:
    """Make the standard output and the standard error tolerant within the block."""
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            before = getattr(sys, name)
            if not isinstance(before, TolerantStream):
                stack.callback(setattr, sys, name, before)
                # None if the process was started with the stream closed
                own = TolerantStream(io.StringIO() if before is None else before)
                setattr(sys, name, cast(TextIO, own))
                stack.callback(own.flush)
        yield


@contextlib.contextmanager
def tolerant(console: "Console") -> Iterator[None]:
    """As `tolerant_output`, including the file of a console."""
    with tolerant_output():
        before = console.file
        if isinstance(before, TolerantStream):
            yield
            return
        console.file = cast(Any, TolerantStream(cast(TextIO, before)))
        try:
            yield
        finally:
            console.file = before
