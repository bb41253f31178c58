"""SIGINT and SIGTERM as a flag: long work ends where it can be gone on with, and saves first.

Python's own answer to SIGINT is an exception at any point of the main thread, which foreign code
may swallow, and to SIGTERM a process that ends at once. Within `handled` either sets a flag, which
loops read with `requested` or `check`. A second signal ends the process at once, also in the
middle of a compilation: a thread waits for it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"

_received: list[int] = []
_held: contextlib.ExitStack | None = None  # undoes what `handled` has set


class Interrupted(SystemExit):
    """A signal has asked this process to stop; uncaught, it ends with 128 + the signal's number.

    Args:
        number: of the signal.
        what: where the work stands, as the end of a sentence.
    """

    def __init__(self, number: int, what: str = ""):
        super().__init__(128 + number)
        self.number = number
        self._message = f"stopped by {signal.Signals(number).name}{what}."

    def __str__(self) -> str:
        return self._message


def requested() -> int | None:
    """The signal that has asked to stop, or None."""
    return _received[0] if _received else None


def check(what: str = "") -> None:
    """Raise `Interrupted` if a signal has asked to stop; `what` is told with it."""
    if (number := requested()) is not None:
        raise Interrupted(number, what)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Let SIGINT and SIGTERM set the flag within the block; the handlers before are restored.

    Outside of the main thread, which alone may set handlers, and inside another such block, it
    changes nothing.

    Raises:
        Interrupted: at the end of the block, for a signal that nothing in it has answered.
    """
    global _held
    if _held is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with contextlib.ExitStack() as stack:
        _held = stack
        stack.callback(_forget)
        _listen(stack)
        yield
        check()


def _forget() -> None:
    global _held
    _held = None
    _received.clear()


def _listen(stack: contextlib.ExitStack) -> None:
    """Set the handlers, and start the thread that waits for a second signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    stack.callback(os.close, reader)
    stack.callback(watcher.join)
    stack.callback(os.close, writer)  # which ends the thread
    for number in _SIGNALS:
        before = signal.signal(number, lambda number, frame: _received.append(number))
        stack.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, before)


def _watch(reader: int) -> None:
    """End the process at its second signal; the interpreter writes each to the pipe as it comes."""
    count = 0
    while numbers := os.read(reader, 1):
        count += numbers[0] in _SIGNALS
        if count == 2:
            with contextlib.suppress(OSError):
                if os.isatty(1):  # a bar may have hidden it
                    os.write(1, _SHOW_CURSOR)
            os._exit(128 + numbers[0])


def _block() -> None:
    """Hold signals back while a process forks, so that each meets its own process's handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _in_child() -> None:
    """A forked process has no such thread, and no work to save: signals end it as ever."""
    if _held is not None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _forget()
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_in_child)
