"""A process whose steps no longer end says where it hangs, and ends."""

import subprocess
import sys
import time

from miras.runtime.watchdog import EXIT_STUCK, Watchdog

STUCK = """
import pathlib, sys, time
from miras.runtime.watchdog import Watchdog

def waits_for_ever():
    time.sleep(60)

with Watchdog(0.2 / 60, pathlib.Path(sys.argv[1]), "the run in runs/a") as watchdog:
    time.sleep(0.5)  # the first step may take any time
    print("first", flush=True)
    watchdog.beat()
    waits_for_ever()
"""


def test_a_stuck_process_writes_its_stacks_and_ends(tmp_path):
    file = tmp_path / "stacks.txt"
    ended = subprocess.run(
        [sys.executable, "-c", STUCK, str(file)], capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout) == (EXIT_STUCK, "first\n")
    for text in (ended.stderr, file.read_text()):
        assert text.startswith("miras: no step of the run in runs/a has ended within 0.00333")
        assert "in waits_for_ever" in text
    assert "in _watch" in file.read_text()  # all threads


def test_work_that_goes_on_is_left_alone(tmp_path):
    with Watchdog(0.3 / 60, tmp_path / "stacks.txt", "work") as watchdog:
        watchdog.beat()
        for _ in watchdog.over(range(4)):
            time.sleep(0.15)
    with Watchdog(None, tmp_path / "stacks.txt", "work") as watchdog:
        watchdog.beat()
    assert not (tmp_path / "stacks.txt").exists()
