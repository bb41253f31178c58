"""SIGINT and SIGTERM as a flag, so that long work can save and stop where it can be resumed.

By default Python raises an exception at an arbitrary point of the main thread on SIGINT, which
other code may swallow, and ends the process at once on SIGTERM. Within `handled`, either signal
sets a flag, which loops read with `requested` or `check`. A thread waits for a second signal, which
ends the process at once, even during a compilation.

All processes of a run must stop at the same step, whichever of them received the signal. So where
`jax.distributed` connects several, it keeps the handler of SIGTERM that it has installed (in C++,
and unknown to Python): its thread looks once a second, tells the other processes, and they agree on
the first step that none of them has begun. `poll` asks for that agreement, and only it sets the
flag. SIGINT has the handler of this module, which sends the process a SIGTERM. A signal during a
compilation is thereby served after it. Only a second SIGINT ends such a process at once: a second
SIGTERM changes nothing, and schedulers follow it by SIGKILL.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from miras.runtime import processes

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"

_received: list[int] = []
_interrupts: list[int] = []  # SIGINT in one of several processes
_polls = 0  # calls of `poll`, which all processes of a run do alike
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


def poll() -> int | None:
    """As `requested`, after asking whether a signal to any process of the run is to be served now.

    All processes of a run must call it equally often, at the same points of their work: they then
    see the signal in the same call. It waits for no process unless there was a signal.
    """
    global _polls
    if processes.count() > 1 and not _received:
        from jax.experimental import multihost_utils

        _polls += 1
        if multihost_utils.reached_preemption_sync_point(_polls):
            _received.append(_interrupts[0] if _interrupts else signal.SIGTERM)
    return requested()


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
    _interrupts.clear()


def _listen(stack: contextlib.ExitStack) -> None:
    """Set the handlers and start the thread that waits for a second signal."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    stack.callback(os.close, reader)
    stack.callback(watcher.join)
    stack.callback(os.close, writer)  # ends the thread
    several = processes.count() > 1
    for number in (signal.SIGINT,) if several else _SIGNALS:
        before = signal.signal(number, _tell_all if several else _receive)
        stack.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, before)


def _receive(number: int, frame: FrameType | None) -> None:
    del frame
    _received.append(number)


def _tell_all(number: int, frame: FrameType | None) -> None:
    """Pass a signal on to the handler of jax, which tells all processes."""
    del frame
    _interrupts.append(number)
    os.kill(os.getpid(), signal.SIGTERM)


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
