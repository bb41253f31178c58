"""The lease of a folder on an object store or a shared disk: how one writer is sure of the folder.

An object store has no lock and no rename. It has what this protocol needs: an object can be created
on the condition that it does not exist, and a listing shows every object that was written before.
A disk that several hosts share has that as well (files are created with `O_EXCL`), and may have no
locks between hosts, or keep those of a host that is lost.

    writer/00000001.json, writer/00000002.json, ...     one object for each writer that ever was

1. **Acquire.** The object of the highest number N is the lease. If its writer has released it, or
   there is none, a new writer creates the object N + 1 on the condition that it does not exist (S3:
   `If-None-Match: *`; Google Cloud Storage: `ifGenerationMatch=0`). Of several that try, one
   succeeds. N + 1 is the writer's epoch.
2. **Renew.** The writer rewrites its own object every `HEARTBEAT` seconds, with a counter. No one
   else writes it.
3. **Take over.** If the lease was not released, a new writer reads it for up to `EXPIRY` seconds.
   If the object changes, its writer is alive, and the new writer raises an error. If it does not
   change, the writer is dead or cut off, and the new one creates N + 1 as in 1. No clocks of two
   machines are compared.
4. **Fencing.** Before each renewal, before each checkpoint and before each upload, a writer reads
   the highest number. If it is above its own epoch, or its own object has another token, it has
   lost the lease: it stops with an error and writes nothing more.
5. **Late writes.** A writer that is stopped between 4 and its write can write late. So the files of
   a checkpoint lie in a folder with the epoch in its name, to which only one writer ever writes,
   and the checkpoint counts once its marker names that folder (`mirror`). A late writer can thereby
   only add a complete checkpoint of the same run. Of the other files, which the owner writes whole
   at each flush, it can replace one by an older copy until the owner's next flush.

6. **On a disk** the checkpoints lie in place. A writer that has lost the lease therefore ends its
   process at its next heartbeat (`lost`), which is due when a process that was stopped goes on. A
   network file system may list a folder as it was a minute ago, but it opens a file as it is now: a
   new writer removes the object of the one before, which finds out by that.

Of a run of several processes, process 0 acquires and renews the lease. The others `join` it: they
know its epoch and token, and check as in 4.

A store that ignores the condition of 1 lets the last of several creators win; the others find its
token in their object at their next heartbeat, and stop.
"""

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from etils import epath

from miras.errors import ConfigError
from miras.runtime import paths

HEARTBEAT = 10.0  # seconds between two renewals
EXPIRY = 60.0  # seconds without a renewal after which a lease may be taken over
_NAME = re.compile(r"([0-9]{8})\.json")
_log = logging.getLogger(__name__)


class InUseError(ConfigError):
    """Another writer, which is alive, has the folder."""


class LeaseLostError(ConfigError):
    """Another writer has taken over the folder, so that this process must not write to it."""


class Lease:
    """The right to write to a run folder on an object store or a shared disk.

    Args:
        folder: of the run.
        lost: called in a thread, once, when a heartbeat finds that the lease is lost.

    Attributes:
        epoch: the number of this writer, >= 1, higher than those of all writers before; 0 before
            `acquire`.
        token: by which its processes know its object.
    """

    def __init__(self, folder: epath.Path, lost: Callable[[LeaseLostError], None] | None = None):
        self.epoch, self._when_lost = 0, lost
        self._run, self._folder = folder, folder / "writer"
        self.token, self._beats = secrets.token_hex(8), 0
        self._lost: LeaseLostError | None = None
        self._stop = threading.Event()
        self._busy = threading.Lock()  # of the lease's object
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def acquire(self) -> None:
        """Take the lease, and renew it in a thread from then on.

        It waits for up to `EXPIRY` seconds for a writer that did not release it.

        Raises:
            InUseError: another process writes to the folder.
            ConfigError: the store cannot be reached.
            OSError: the disk cannot be written.
        """
        epoch, holder = self._highest()
        if holder is not None and not holder.get("released"):
            self._wait_for_expiry(epoch, holder)
        if not paths.create(self._object(epoch + 1), self._content()):
            raise self._in_use(self._highest()[1] or {})
        self.epoch = epoch + 1
        for older in range(max(1, epoch - 1), epoch + 1):
            paths.remove(self._object(older))
        self._thread.start()

    def join(self, epoch: int, token: str) -> None:
        """Check from now on that process 0 of this run, which has acquired the lease, still has it.

        Args:
            epoch: of process 0.
            token: of process 0.
        """
        self.epoch, self.token = epoch, token

    def check(self) -> None:
        """Check that no other writer has taken the lease.

        Raises:
            LeaseLostError: one has.
            ConfigError: the store cannot be reached.
        """
        if self._lost is None:
            epoch, holder = self._highest()
            if epoch != self.epoch or (holder or {}).get("token") != self.token:
                self._lost = LeaseLostError(
                    f"{self._run} was taken over by {_named(holder or {})}, since this run had "
                    f"not renewed its lease for {EXPIRY:g} s: this run stops and writes nothing "
                    "more to it. If both are wanted, give another folder with --out."
                )
        if self._lost is not None:
            raise self._lost

    def release(self) -> None:
        """Stop renewing the lease, and give it back unless it was lost.

        Raises:
            ConfigError: the store cannot be reached; the lease then expires.
        """
        self._stop.set()
        self._thread.join()
        if self._lost is None:
            self._renew(released=True)

    def _renew(self, **more: bool) -> None:
        with self._busy:
            self.check()
            self._beats += 1
            paths.write(self._object(self.epoch), self._content(**more))

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            try:
                self._renew()
            except LeaseLostError as error:
                if self._when_lost is not None:
                    self._when_lost(error)
                return
            except (ConfigError, OSError) as error:  # once it answers again, a check decides
                _log.warning("warning: the lease could not be renewed: %s", error)

    def _wait_for_expiry(self, epoch: int, holder: dict[str, Any]) -> None:
        """Return once the lease has expired.

        Raises:
            InUseError: it was renewed or taken.
        """
        _log.warning(
            "%s was last written by %s, which did not release it: waiting up to %g s to see "
            "whether it is alive.",
            self._run,
            _named(holder),
            EXPIRY,
        )
        end = time.monotonic() + EXPIRY
        while time.monotonic() < end:
            time.sleep(min(1.0, HEARTBEAT / 4))
            found = self._highest()
            if found[1] is not None and found[1].get("released"):
                return
            if found != (epoch, holder):
                raise self._in_use(found[1] or holder)

    def _in_use(self, holder: dict[str, Any]) -> InUseError:
        return InUseError(
            f"{self._run} is in use by {_named(holder)}: wait until it ends, or give another "
            "folder with --out."
        )

    def _highest(self) -> tuple[int, dict[str, Any] | None]:
        """The highest number and the content of its object; 0 and None if there is none."""
        found = [_NAME.fullmatch(name) for name in paths.entries(self._folder)]
        epoch = max((int(match[1]) for match in found if match), default=0)
        if not epoch:
            return 0, None
        try:
            content = json.loads(paths.read(self._object(epoch)))
        except (FileNotFoundError, ValueError):  # taken over, or of something else
            content = {}
        return epoch, content if isinstance(content, dict) else {}

    def _object(self, epoch: int) -> epath.Path:
        return self._folder / f"{epoch:08}.json"

    def _content(self, **more: bool) -> str:
        own = {"token": self.token, "host": socket.gethostname(), "process": os.getpid()}
        return json.dumps(own | {"beats": self._beats} | more, indent=1) + "\n"


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on {holder.get('host', 'an unknown host')}"
