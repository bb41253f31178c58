"""SIGINT and SIGTERM as a flag, so that long work can save and stop where it can be resumed.

By default Python raises an exception at an arbitrary point of the main thread on SIGINT, which
other code may swallow, and ends the process at once on SIGTERM. Within `handled`, either signal
sets a flag, which loops read with `requested` or `check`. A thread waits for a second signal, which
ends the process at once, even during a compilation.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"

_received: list[int] = []
_cleanup: contextlib.ExitStack | None = None  # undoes what `handled` has set up


class Interrupted(SystemExit):
    """A signal asked this process to stop; if uncaught, the exit code is 128 + its number.

    Args:
        number: of the signal.
        what: the state of the work, appended to the message.
    """

    def __init__(self, number: int, what: str = ""):
        super().__init__(128 + number)
        self.number = number
        self._message = f"stopped by {signal.Signals(number).name}{what}."

    def __str__(self) -> str:
        return self._message


def requested() -> int | None:
    """The signal that asked the process to stop, or None."""
    return _received[0] if _received else None


def check(what: str = "") -> None:
    """Raise `Interrupted` if a signal asked the process to stop.

    Args:
        what: as in `Interrupted`.
    """
    if (number := requested()) is not None:
        raise Interrupted(number, what)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Let SIGINT and SIGTERM set the flag within the block; previous handlers are restored.

    It has no effect inside another such block, or outside of the main thread, which alone can set
    handlers.

    Raises:
        Interrupted: at the end of the block, after a signal that `check` has not reported.
    """
    global _cleanup
    if _cleanup is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:
        _cleanup = stack
        stack.callback(_forget)
        _listen(stack)
        yield
        check()


def _forget() -> None:
    global _cleanup
    _cleanup = None
    _received.clear()


def _listen(stack: contextlib.ExitStack) -> None:
    """Set the handlers and start the thread that waits for a second signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    stack.callback(os.close, reader)
    stack.callback(watcher.join)
    stack.callback(os.close, writer)  # ends the thread
    for number in _SIGNALS:
        before = signal.signal(number, lambda number, frame: _received.append(number))
        stack.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, before)


def _watch(reader: int) -> None:
    """End the process at the second signal; the interpreter writes each signal to the pipe."""
    count = 0
    while numbers := os.read(reader, 1):
        count += numbers[0] in _SIGNALS
        if count == 2:
            with contextlib.suppress(OSError):
                if os.isatty(1):  # a progress bar may have hidden the cursor
                    os.write(1, _SHOW_CURSOR)
            os._exit(128 + numbers[0])


def _block() -> None:
    """Block signals during a fork, so that each process receives its own."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _in_child() -> None:
    """Restore the default handlers in a forked process, which has no such thread."""
    if _cleanup is not None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget()
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_in_child)
