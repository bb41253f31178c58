"""A folder on a disk that several hosts share: one writer, also where locks fail or remain."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from miras.errors import ConfigError
from miras.train.runs import disk_lock, lease
from miras.train.runs.disk_lock import DiskLock
from miras.train.runs.lease import InUseError, LeaseLostError

HOLDER = """
import pathlib, sys, time
from miras.train.runs import lease
from miras.train.runs.disk_lock import DiskLock
lease.HEARTBEAT = 0.1
with DiskLock(pathlib.Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """A shared folder, whose leases expire fast."""
    monkeypatch.setattr(lease, "HEARTBEAT", 0.1)
    monkeypatch.setattr(lease, "EXPIRY", 0.6)
    DiskLock(tmp_path / "run").share()
    return tmp_path / "run"


def hold(folder):
    """A process that holds the folder."""
    words = [sys.executable, "-c", HOLDER, str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_writers_of_a_shared_folder_follow_each_other(shared):
    for epoch in (1, 2):
        with DiskLock(shared).held():
            assert (shared / "lock").read_text() == f"{os.getpid()} lease\n"
            assert f"{epoch:08}.json" in os.listdir(shared / "writer")
    lock = DiskLock(shared)
    with lock.held(), pytest.raises(InUseError, match="is in use by"), DiskLock(shared).held():
        pass
    lock.check()  # nothing is held, and nothing is lost


def test_a_folder_that_is_not_shared_has_no_lease(tmp_path):
    with DiskLock(tmp_path).held():
        assert os.listdir(tmp_path) == ["lock"]


def test_without_locks_between_hosts_the_lease_decides(shared, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with DiskLock(shared).held(), pytest.raises(InUseError), DiskLock(shared).held():
        pass
    (shared / "writer").rename(shared / "other")
    with pytest.raises(ConfigError, match="cannot write"), DiskLock(shared).held():
        pass


def test_the_lock_of_a_lost_host_does_not_count(shared):
    """A server keeps the lock of a host that is gone: here, another open file of this process."""
    with (shared / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("17 lease\n")
        file.flush()
        with DiskLock(shared).held():
            pass
        file.seek(0)
        file.write("17\n      ")  # of a writer that knows no lease, and may be alive
        file.flush()
        with pytest.raises(InUseError, match="the run of process 17"), DiskLock(shared).held():
            pass
    with DiskLock(shared).held():  # at once: the lease was released
        pass


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_stopped_writer_that_wakes_up_ends_at_once(shared):
    process = hold(shared)
    try:
        with pytest.raises(InUseError), DiskLock(shared).held():
            pass
        process.send_signal(signal.SIGSTOP)  # as a host that is cut off
        start = time.monotonic()
        with DiskLock(shared).held():  # its lock is held still
            assert time.monotonic() - start >= lease.EXPIRY
            process.send_signal(signal.SIGCONT)
            assert process.wait(10) == 75
            assert "was taken over by process" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_writer_that_lost_its_lease_saves_nothing(shared, monkeypatch):
    monkeypatch.setattr(disk_lock, "end_process", lambda error: None)  # as before the heartbeat
    monkeypatch.setattr(lease, "HEARTBEAT", 30.0)
    first, second = DiskLock(shared), DiskLock(shared)
    with first.held(), second.held():
        second.check()
        with pytest.raises(LeaseLostError, match="was taken over"):
            first.check()
