"""Each tool reads what is written for it, in an environment of its own that pip makes.

    python -m pytest -m interop tests/launch

The environments are in $MIRAS_INTEROP, or beside this one, and are kept. They take minutes to make.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import venv

import pytest

from miras.cli.main import main
from miras.parallel.slices import parse_slice
from tests.launch import test_sweeps
from tests.launch.test_pages import commands

pytestmark = pytest.mark.interop

PACKAGES = {
    "sky": "skypilot[gcp]",
    "xpk": "xpk==1.16.0",  # without a version, pip tries old ones for half an hour
    "gcloud": "google-cloud-tpu",
    "ray": "ray[default]",
    "kubernetes": "kubernetes-validate==1.33.1",
}
CHECKS = pathlib.Path(__file__).parent / "interop.py"
TRAIN = ["--", "train", "moneta", "--recipe", "miras-340m-15b", "--data", "gs://b/set"]
SLICES = {
    "sky": ("v5e-16", "v5e-256", "v6e-64", "v5p-128", "h100-16"),
    "xpk": ("v5e-16", "2xv5e-256", "v6e-64", "v5p-128", "v4-32"),
    "gcloud": ("v5e-16", "2xv5e-256", "v6e-64", "v5p-128"),
    "ray": ("h100-16",),
}


def python(tool):
    """The interpreter of the tool's environment, which is made if it is not there."""
    root = pathlib.Path(os.environ.get("MIRAS_INTEROP") or pathlib.Path(sys.prefix) / "interop")
    path, done = root / tool / "bin" / "python", root / tool / ".installed"
    if not done.exists():
        venv.create(root / tool, with_pip=True, clear=True)
        subprocess.run([path, "-m", "pip", "install", "-q", PACKAGES[tool]], check=True)
        done.touch()
    return path


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("tool", SLICES)
def test_the_tool_reads_what_is_written_for_it(tool, tmp_path):
    folder = tmp_path / "files"
    for n, name in enumerate(SLICES[tool]):
        found = parse_slice(name)
        shape = f"{'x'.join(map(str, found.shape))}_{found.hosts}"  # what xpk must find, too
        argv = ["launch", tool, "--on", name, "--out", str(folder), "--name", f"job{n}"]
        argv += ["--shared", "10.0.0.9:/vol", *["--spot"] * (n % 2)]
        assert main([*argv, *TRAIN, "--out", "/shared/run"]) == 0
        if tool == "xpk":
            (folder / f"job{n}.xpk.sh").rename(folder / f"{shape}.xpk.sh")
    done = check(tool, tool, folder, commands("tpu.md", tool))
    assert done.stdout.count("\n") >= len(SLICES[tool])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("tool", "name"), [("sky", "sky_sweep"), ("kubernetes", "kubernetes")])
def test_the_tool_reads_the_file_of_a_sweep(tool, name, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "sweep.sky.yaml").write_text(test_sweeps.SKY)
    (folder / "sweep.k8s.yaml").write_text(test_sweeps.KUBERNETES)
    check(tool, name, folder, commands("sweeps.md", tool))


def check(tool, name, folder, lines):
    """Run a function of interop.py in the environment of a tool."""
    home = folder.parent / "home"
    home.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    done = subprocess.run(
        [python(tool), CHECKS, name, folder, *lines],
        env=environment | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        cwd=folder.parent,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_gcloud_has_the_options(tmp_path):
    if shutil.which("gcloud") is None:
        pytest.skip("gcloud is not installed")
    argv = ["launch", "gcloud", "--on", "2xv5e-16", "--name", "job", "--out", str(tmp_path)]
    argv += ["--shared", "10.0.0.9:/vol", "--spot", "--zone", "us-west4-a", "--project", "p"]
    assert main([*argv, *TRAIN, "--out", "/shared/run"]) == 0
    lines = (tmp_path / "job.gcloud.sh").read_text().replace("\\\n", " ").splitlines()
    pages = [*commands("tpu.md", "gcloud"), *commands("sweeps.md", "gcloud")]
    for line in [lines[-1].removeprefix("exec "), *pages]:
        words = shlex.split(line)
        end = next(
            n for n, word in enumerate(words) if word in ("create", "describe", "ssh", "delete")
        )
        page = subprocess.run(
            [*words[: end + 1], "--help"],
            capture_output=True,
            text=True,
            env=os.environ | {"PAGER": "cat"},
        )
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert option in page.stdout, f"{option} of {line}"
