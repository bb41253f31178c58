"""What `miras launch` writes: valid commands of `miras train`, in files that bash can read."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml

from miras.cli.main import main
from miras.launch import TOOLS
from miras.launch.job import REPEATED

TRAIN = ("train", "moneta", "--recipe", "miras-340m-15b", "train.steps=100")
CLOUD = ("--data", "gs://b/set", "--out", "/shared/runs/mine")
NFS = ("--shared", "10.0.0.9:/vol")
TPUS = {"sky": "v5e-16", "xpk": "2xv5e-256", "gcloud": "2xv5e-16", "ray": "v5p-32"}
GPUS = {"sky": "h100-16", "slurm": "h100-32", "ray": "h100-16"}
CASES = [*TPUS.items(), *GPUS.items()]


def launch(tool, on, folder, *options):
    argv = ["launch", tool, "--on", on, *NFS, "--name", "job", "--out", str(folder), *options, "--"]
    assert main([*argv, *TRAIN, *CLOUD]) == 0
    return {path.name: path.read_text() for path in folder.iterdir()}


def run_stubbed(script, **environment):
    """Run a script that finds no program at all: what it calls must be a function of its own."""
    bash = shutil.which("bash")
    return subprocess.run(
        [bash, "--norc", "-c", script],
        env={"PATH": "/nonexistent", **environment},
        capture_output=True,
        text=True,
    )


def train_words(text):
    """The words of `miras train` in a file."""
    if "COMMAND = [" in text:
        tree = ast.parse(text)
        (node,) = [
            n for n in tree.body if isinstance(n, ast.Assign) and "COMMAND" in ast.unparse(n)
        ]
        return ast.literal_eval(node.value)
    (line,) = re.findall(r"^.*\bmiras train .*$", text, re.MULTILINE)
    words = shlex.split(line[line.index("miras train") :].removesuffix("'"))
    return words[: words.index("--coordinator")] if "--coordinator" in words else words


@pytest.mark.parametrize(("tool", "on"), CASES)
def test_the_command_is_the_given_one_with_its_slice(tool, on, tmp_path, capsys):
    files = launch(tool, on, tmp_path, "--image", "registry/miras:1")
    (text,) = [text for text in files.values() if re.search(r"miras train|COMMAND", text)]
    assert train_words(text) == ["miras", *TRAIN, *CLOUD, "--on", on]
    told = capsys.readouterr().out
    for name, text in files.items():
        assert text in told
        assert name in told
    if tool not in ("slurm", "ray"):
        assert "registry/miras:1" in "".join(files.values())


@pytest.mark.parametrize(("tool", "on"), CASES)
def test_every_script_is_one_of_bash_or_python(tool, on, tmp_path, capsys):
    for name in launch(tool, on, tmp_path):
        path = tmp_path / name
        if name.endswith((".sh", ".sbatch")):
            subprocess.run(["bash", "-n", path], check=True)
        elif name.endswith(".py"):
            compile(path.read_text(), name, "exec")
        else:
            task = yaml.safe_load(path.read_text())
            subprocess.run(["bash", "-nc", task["run"]], check=True)
    submit = capsys.readouterr().out.split("To submit")[1]
    subprocess.run(["bash", "-nc", "\n".join(re.findall("^    (.*)$", submit, re.M))], check=True)


def test_a_managed_job_of_skypilot(tmp_path):
    task = yaml.safe_load(launch("sky", "v5e-16", tmp_path, "--spot")["job.sky.yaml"])
    resources = task["resources"]
    assert (task["name"], task["num_nodes"]) == ("job", 1)
    assert resources["accelerators"] == "tpu-v5litepod-16:1"
    assert resources["accelerator_args"]["runtime_version"] == "v2-alpha-tpuv5-lite"
    assert resources["use_spot"] is True
    assert resources["job_recovery"]["recover_on_exit_codes"] == list(REPEATED)


@pytest.mark.parametrize("tool", ["sky", "gcloud"])
def test_the_hosts_mount_what_they_share_once(tool, tmp_path):
    files = launch(tool, "v5e-16", tmp_path)
    text = files.get("job.startup.sh") or yaml.safe_load(files["job.sky.yaml"])["setup"]
    mount = [line for line in text.splitlines() if "mountpoint" in line]
    for mounted in (True, False):
        stub = (
            f"mountpoint() {{ {str(mounted).lower()}; }}\nsudo() {{ $*; }}\nmount() {{ echo $*; }}"
        )
        done = run_stubbed("\n".join([stub, *mount]))
        assert done.stdout == ("" if mounted else "-t nfs 10.0.0.9:/vol /shared\n")
    if tool == "gcloud":
        assert "--volume /shared:/shared" in text


def test_one_host_may_have_its_run_folder_on_an_object_store(tmp_path):
    argv = ["launch", "sky", "--on", "v5e-8", "--name", "job", "--out", str(tmp_path), "--"]
    assert main([*argv, *TRAIN, *CLOUD[:2], "--out", "gs://b/runs/mine"]) == 0
    assert "setup" not in yaml.safe_load((tmp_path / "job.sky.yaml").read_text())


def test_nodes_of_gpus_are_connected(tmp_path):
    task = yaml.safe_load(launch("sky", "h100-16", tmp_path, "--zone", "us-a1-b")["job.sky.yaml"])
    assert task["resources"]["accelerators"] == "H100:8"
    assert task["resources"]["infra"] == "gcp/*/us-a1-b"
    head = "head() { read -r line; echo $line; }"
    script = head + f'\nmiras() {{ printf "%s\\n" "${{@: -6}}"; }}\n{task["run"]}'
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NUM_NODES": "2"}
    env = {**nodes, "SKYPILOT_NODE_RANK": "1"}
    told = run_stubbed(script, **env)
    expected = ["--coordinator", "10.0.0.1:8476", "--processes", "2", "--process", "1"]
    assert told.stdout.split("\n")[:-1] == expected


def test_slices_of_xpk_and_of_a_queued_resource(tmp_path):
    (tmp_path / "xpk").mkdir()
    text = launch("xpk", "2xv5e-256", tmp_path / "xpk", "--cluster", "mine")["job.xpk.sh"]
    words = shlex.split(text.replace("\\\n", " "), comments=True)
    assert {"--cluster=mine", "--tpu-type=v5litepod-256", "--num-slices=2"} <= set(words)
    (tmp_path / "gcloud").mkdir()
    files = launch("gcloud", "2xv5e-16", tmp_path / "gcloud", "--spot", "--zone", "us-west4-a")
    words = shlex.split(files["job.gcloud.sh"].replace("\\\n", " "), comments=True)
    assert {"--node-count=2", "--node-prefix=job", "--spot", "--zone=us-west4-a"} <= set(words)
    assert "--metadata-from-file=startup-script=job.startup.sh" in words


@pytest.mark.parametrize(("codes", "runs", "end"), [([75, 143, 0], 3, 0), ([2, 0], 1, 2)])
def test_the_start_up_script_repeats_what_asks_for_it(codes, runs, end, tmp_path):
    script = launch("gcloud", "v5e-16", tmp_path)["job.startup.sh"]
    counted = tmp_path / "runs"
    stub = f"""
docker() {{
    [ "$1" = run ] || return 0
    echo x >> {counted}
    codes=({" ".join(map(str, codes))})
    mapfile -t done < {counted}
    return ${{codes[${{#done[@]}} - 1]}}
}}
for name in apt-get mkdir mount mountpoint gcloud sleep; do eval "$name() {{ :; }}"; done
"""
    done = run_stubbed(stub + script)
    assert (len(counted.read_text().split()), done.returncode) == (runs, end)


def test_a_batch_script_requeues_itself(tmp_path):
    script = launch("slurm", "h100-32", tmp_path)["job.sbatch"]
    for code, requeued in ((143, "requeue 7\n"), (0, ""), (2, "")):
        stub = f"srun() {{ return {code}; }}\nscontrol() {{ echo $*; }}\nSLURM_JOB_ID=7\n"
        done = run_stubbed(stub + script)
        assert (done.returncode, done.stdout) == (code, requeued)


def test_one_process_on_each_host_of_ray(tmp_path):
    text = launch("ray", "v5e-16", tmp_path, "--restarts", "3")["job.ray.py"]
    assert "HOSTS = 4\n" in text
    assert 'HOST = {"CPU": 1, "TPU": 4}\n' in text
    assert "RESTARTS = 3\n" in text


def test_the_name_is_that_of_the_preset_and_the_config(tmp_path):
    names = []
    for steps in ("5", "6"):
        folder = tmp_path / steps
        argv = ["launch", "slurm", "--on", "h100-8", "--out", str(folder), "--", "train"]
        assert main([*argv, "transformer++", f"steps={steps}", "--out", "/shared/run"]) == 0
        (path,) = folder.iterdir()
        names.append(path.stem)
    assert names[0] != names[1]
    assert all(re.fullmatch(r"transformer-[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sky", *NFS, "--on", "v5e-16"], ["after --"]),
        (["sky", *NFS, "--on", "v5e-16", "--", "eval", "run"], ["after --"]),
        (["sky", *NFS, "--", *TRAIN, *CLOUD], ["--on SLICE is missing"]),
        (["sky", *NFS, "--on", "v5e-17", "--", *TRAIN, *CLOUD], ["'v5e-17'", "v5e-16"]),
        (["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, *CLOUD, "--on", "v5e-64"], ["differ"]),
        (["sky", *NFS, "--on", "2xv5e-16", "--", *TRAIN, *CLOUD], ["2xv5e-16", "xpk or gcloud"]),
        (["slurm", "--on", "v5e-16", "--", *TRAIN, *CLOUD], ["slurm starts jobs on GPUs"]),
        (["xpk", *NFS, "--on", "h100-8", "--", *TRAIN, *CLOUD], ["xpk starts jobs on TPUs"]),
        (["skye", "--on", "v5e-16", "--", *TRAIN, *CLOUD], ["'skye'"]),
        (["sky", *NFS, "--on", "v5e-16", "--", *TRAIN], ["--out is missing"]),
        (["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, "--out", "runs/x"], ["'runs/x'", "gs://"]),
        (
            ["sky", "--on", "v5e-8", "--", *TRAIN, *CLOUD[:2], "--out", "runs/x"],
            ["'runs/x'", "gs://"],
        ),
        (["sky", "--on", "v5e-16", "--", *TRAIN, *CLOUD], ["4 hosts", "--shared"]),
        (
            ["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, "--out", "/b/x"],
            ["fineweb_edu", "relative"],
        ),
        (
            ["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, *CLOUD, "widht=3"],
            ["did you mean 'width'"],
        ),
        (
            ["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, *CLOUD, "--outt", "x"],
            ["did you mean --out"],
        ),
        (
            ["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, *CLOUD, "width=100"],
            ["width=100", "heads"],
        ),
        (
            ["sky", *NFS, "--on", "v5e-256", "--", *TRAIN, *CLOUD, "batch=24"],
            ["heads=16", "tensor=32"],
        ),
        (["sky", *NFS, "--on", "v5e-16", "--", *TRAIN, *CLOUD, "--process", "1"], ["leave out"]),
        (["sky", *NFS, "--on", "v5e-16", "--name", "A_b", "--", *TRAIN, *CLOUD], ["'A_b'"]),
        (["sky", *NFS, "--on", "v5e-16", "--restarts", "-1", "--", *TRAIN, *CLOUD], ["-1"]),
        (["xpk", "--colour", "--", *TRAIN, *CLOUD], ["--colour"]),
    ],
)
def test_nothing_is_written_for_what_cannot_run(argv, words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused("launch", *argv)
    for word in words:
        assert word in told
    assert list(tmp_path.iterdir()) == []


def test_the_tools_are_those_of_the_command():
    from miras.cli.launch import _TOOLS

    assert tuple(TOOLS) == _TOOLS


def test_a_word_with_spaces_stays_one(tmp_path):
    mix = 'data.mix={"gs://b/one": 0.5, "gs://b/two": 0.5}'
    argv = ["launch", "gcloud", "--on", "v5e-8", "--name", "mix", "--out", str(tmp_path), "--"]
    assert main([*argv, "train", "yaad", mix, "data.batch=8", "--out", "gs://b/run"]) == 0
    words = train_words((tmp_path / "mix.startup.sh").read_text())
    assert json.loads(words[3].partition("=")[2]) == {"gs://b/one": 0.5, "gs://b/two": 0.5}


FAKE_RAY = """
import json, os, sys, types

class Remote:
    def __init__(self, function): self.function = function
    def options(self, **_): return self
    def remote(self, *args): return self.function(*args)

def remote(**_): return Remote
def init(): pass
def get(x): return x
ray = sys.modules[__name__]
exceptions = types.SimpleNamespace(RayError=RuntimeError)
util = types.ModuleType("ray.util")
util.get_node_ip_address = lambda: "10.0.0.1"
group = types.ModuleType("ray.util.placement_group")
group.placement_group = lambda *a, **k: types.SimpleNamespace(ready=lambda: None)
group.remove_placement_group = lambda group: None
strategies = types.ModuleType("ray.util.scheduling_strategies")
strategies.PlacementGroupSchedulingStrategy = lambda group, n: n
for module in (util, group, strategies):
    sys.modules[module.__name__] = module
__path__ = []
"""


@pytest.mark.parametrize(
    ("attempts", "end"),
    [
        ([[0, 0]], 0),
        ([[0, 75], [-15, -9], [143, 134], [0, 0]], 0),
        ([[75, 75], [75, 2]], 2),  # the config is wrong on one host
        ([[1, 134]], 1),
        ([[75, 0]] * 4, 75),  # four, of which three are restarts
    ],
)
def test_the_driver_of_ray_repeats_what_asks_for_it(attempts, end, tmp_path):
    text = launch("ray", "h100-16", tmp_path, "--restarts", "3")["job.ray.py"]
    (tmp_path / "ray.py").write_text(FAKE_RAY)
    calls = [f"--coordinator 10.0.0.1:8476 --processes 2 --process {n}" for n in range(2)]
    program = f"""
import itertools, subprocess
codes = iter({[code for codes in attempts for code in codes]})
subprocess.call = lambda words: print(*words[-6:]) or next(codes)
exec(compile(open("job.ray.py").read(), "job.ray.py", "exec"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == end, done.stderr
    assert done.stdout.splitlines() == calls * len(attempts)
    assert "import ray\n" in text
