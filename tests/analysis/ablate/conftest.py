"""Grids small enough to run many times over, and a worker that only pretends to train."""

import functools

import pytest

import miras
from miras.analysis.ablate import make_grid, processes
from miras.cli.ablate import parse_points
from miras.train import RunConfig

# Reads its config, and leaves an outcome that depends on the name of its folder alone.
FAKE = """
import json, os, pathlib, re, signal, sys, time
folder = pathlib.Path(sys.argv[1])
sys.stdin.readline()
print("working")
folder.mkdir(exist_ok=True)
with (folder / "starts").open("a") as starts:
    starts.write(f"{time.time()} {os.environ['NPROC']}\\n")
time.sleep(float(os.environ.get("FAKE_SECONDS", 0.05)))
status, reason, bits = "done", None, 2.0 + int(re.search(r"seed(\\d+)", folder.name)[1]) / 8
if folder.name.startswith("dot"):
    bits += 0.5
for kind in os.environ.get("FAKE_TROUBLE", "").split():
    name, _, what = kind.partition(":")
    if not folder.name.startswith(name):
        continue
    if what == "diverged":
        status, reason, bits = "diverged", "step 1 is not finite", None
    elif what == "refused":
        sys.exit(print("miras: there is no such text.") or 2)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "crashed":
        raise RuntimeError("out of memory")
outcome = dict(config_hash=folder.name.rsplit("-", 1)[1], status=status, reason=reason,
               bits_per_byte=bits, steps=2, seconds=0.1, parameters=100)
(folder / "outcome.json").write_text(json.dumps(outcome))
sys.exit(status != "done")
"""


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put the pretending worker in the place of the real one."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(processes, "WORKER", ("-u", "-I", "-S", str(script)))


@pytest.fixture
def make():
    """Makes a grid of `yaad` from words of the command line; nothing is read or built for it."""

    def made(*words, seeds=2, check=lambda config: None):
        build = functools.partial(miras.override, RunConfig(model=miras.preset("yaad")))
        return make_grid(parse_points(list(words)), build, seeds=seeds, title="yaad", check=check)

    return made
