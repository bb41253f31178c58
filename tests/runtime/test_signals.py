import os
import signal
import subprocess
import sys
import threading

import pytest

from miras.runtime import signals
from miras.runtime.signals import Interrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_a_flag_and_handlers_are_restored(number):
    before = [signal.getsignal(n) for n in SIGNALS], threading.active_count()

    @signals.handled()
    def work():
        assert signals.requested() is None
        signals.check()
        os.kill(os.getpid(), number)
        assert signals.requested() == number
        signals.check(" after step 3")

    with pytest.raises(Interrupted, match=f"stopped by {number.name} after step 3") as stop:
        work()
    assert stop.value.code == 128 + number
    assert signals.requested() is None
    assert ([signal.getsignal(n) for n in SIGNALS], threading.active_count()) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_nobody_read_is_told_at_the_end():
    with pytest.raises(Interrupted, match="SIGTERM"), signals.handled():
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_inner_block_leaves_the_signal_to_the_outer_one():
    @signals.handled()
    def work():
        with signals.handled():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested() == signal.SIGTERM

    with pytest.raises(Interrupted):
        work()


def test_another_thread_sets_no_handler():
    found = []

    def work():
        with signals.handled():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_descriptors_are_given_back():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with signals.handled():
            pass
    assert len(os.listdir("/proc/self/fd")) == before


DEAF = """
import time
from miras.runtime import signals
with signals.handled():
    print("ready", flush=True)
    while signals.requested() is None:
        time.sleep(0.001)
    print("heard", flush=True)
    while True:
        time.sleep(1)  # holds on, whatever comes
"""

CHILD = """
import os, signal
from miras.runtime import signals
with signals.handled():
    child = os.fork()
    if not child:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    print(os.waitpid(child, 0)[1], signals.requested(), flush=True)
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_at_once(number):
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for word in ("ready", "heard"):
        assert process.stdout.readline().strip() == word
        process.send_signal(number)
    assert process.wait() == 128 + number
    process.stdout.close()


@pytest.mark.multiprocess
def test_a_forked_process_is_ended_by_its_signal():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(int(signal.SIGTERM)), "None"]
