"""The files of docs/sweeps.md, which start Ray for `miras ablate`, are valid and fit its code."""

import argparse
import math
import re
import shlex
import shutil
import signal
import subprocess

import pytest
import yaml

from miras.analysis.ablate.ray_cluster import RayOptions, places
from miras.cli import ablate
from miras.cli.ray_options import ray_options
from miras.launch import sky
from miras.launch.job import LaunchJob
from miras.parallel.slices import parse_slice
from tests.launch.test_launch import run_stubbed
from tests.launch.test_pages import DOCS, commands, parsed

PAGE = (DOCS / "sweeps.md").read_text()
ROOT = DOCS.parent
SKY, KUBERNETES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
(SBATCH,) = re.findall(r"^```shell\n(#!.*?)^```", PAGE, re.M | re.S)
NODES = {  # what each file gives to a node of Ray
    "sbatch": {"CPU": 64, "GPU": 8},
    "sky": {"CPU": 224, "TPU": 8, "TPU-v5litepod-8-head": 1},
    "kubernetes": {"CPU": 100, "TPU": 8},
}


def task():
    return yaml.safe_load(SKY)


def manifests():
    disk, job = yaml.safe_load_all(KUBERNETES)
    return disk, job


def group():
    """The only group of workers."""
    (found,) = manifests()[1]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    return found


def ablations():
    """The command that each file gives."""
    texts = {
        "sbatch": SBATCH,
        "sky": task()["run"],
        "kubernetes": manifests()[1]["spec"]["entrypoint"],
    }
    for name, text in texts.items():
        (line,) = re.findall(r"^ *miras ablate .*$", text.replace("\\\n", " "), re.M)
        yield name, line.strip().removesuffix(" &").replace('"$head', '"10.0.0.1')


@pytest.mark.parametrize(("name", "line"), list(ablations()))
def test_the_command_is_valid_and_a_node_has_what_a_run_needs(name, line):
    pytest.importorskip("ray")
    args: argparse.Namespace = parsed(ablate, re.sub(r"10.0.0.1(?=\")", "10.0.0.1:6379", line))
    options = ray_options(args)
    assert isinstance(options, RayOptions)
    assert options.address == ("auto" if name == "kubernetes" else "10.0.0.1:6379")
    assert places({"Resources": NODES[name]}, options) == (8 if name == "sbatch" else 1)
    assert args.out.startswith("/shared/")
    ablate.parse_points(args.overrides)


def stubs(**codes):
    """Functions that print their names and arguments, and return a code."""
    return "".join(
        f'{name.replace("_", "-")}() {{ echo {name} "$*"; return {code}; }}\n'
        for name, code in codes.items()
    )


SLURM = {
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_JOB_ID": "7",
    "SLURMD_NODENAME": "node1",
}


def test_the_batch_script_has_the_nodes_that_it_starts():
    subprocess.run(["bash", "-n"], input=SBATCH, text=True, check=True)
    options = dict(re.findall(r"^#SBATCH --([^=\s]+)=?(.*)$", SBATCH, re.M))
    assert (
        int(options["cpus-per-task"]) == NODES["sbatch"]["CPU"] == int(SLURM["SLURM_CPUS_PER_TASK"])
    )
    assert int(options["gpus-per-node"]) == NODES["sbatch"]["GPU"]
    assert options["signal"].startswith("B:TERM@")
    assert {"requeue", "no-kill", "exclusive"} <= set(options)


@pytest.mark.parametrize("code", [0, 1])
def test_the_batch_script_starts_a_head_and_workers(code):
    done = run_stubbed(stubs(ray=0, srun=0, miras=code, scontrol=0) + SBATCH, **SLURM)
    assert done.returncode == code, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "ray start --head --port=6379 --num-cpus=64 --num-gpus=8"
    (workers,) = [line for line in lines if line.startswith("srun")]
    assert {"--nodes=3", "--ntasks=3", "--exclude=node1", "--no-kill"} <= set(workers.split())
    assert workers.endswith("ray start --address=node1:6379 --block --num-cpus=64 --num-gpus=8")
    (command,) = [line for line in lines if line.startswith("miras")]
    assert "--ray node1:6379" in command
    assert "scontrol" not in done.stdout


def test_the_batch_script_passes_sigterm_on_and_requeues_the_job():
    sleep = shutil.which("sleep")
    run = f"""
miras() {{ echo running; exec {sleep} 30; }}
wait() {{ echo waiting; builtin wait "$@"; }}
"""
    script = stubs(ray=0, srun=0, scontrol=0) + run + SBATCH
    with subprocess.Popen(
        [shutil.which("bash") or "bash", "--norc", "-c", script],
        env={"PATH": "/nonexistent", **SLURM},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        told, left = [], {"running", "waiting"}  # in any order
        for line in process.stdout:
            told.append(line.strip())
            if left and not left - set(told):
                left = set()
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 143, told
    assert "scontrol requeue 7" in told, told


def test_no_command_is_given_without_a_head():
    done = run_stubbed(stubs(ray=3, srun=0, miras=0) + SBATCH, **SLURM)
    assert done.returncode == 3
    assert "miras" not in done.stdout


def test_the_task_of_skypilot_is_that_of_a_slice_of_one_host():
    found = parse_slice("v5e-8")
    assert found.hosts == 1
    job = LaunchJob(("train",), found, "sweep", "image", spot=True, shared="10.0.0.2:/vol")
    (text,) = sky.launch(job).files.values()
    written, shown = yaml.safe_load(text), task()
    for name in ("accelerators", "accelerator_args", "use_spot"):
        assert shown["resources"][name] == written["resources"][name]
    assert shown["setup"] == written["setup"]
    assert set(shown) == set(written)
    assert set(shown["resources"]) == set(written["resources"])
    assert shown["num_nodes"] == 4


@pytest.mark.parametrize(("rank", "code"), [(0, 0), (0, 143), (1, 0)])
def test_each_node_of_skypilot_starts_ray(rank, code):
    head = "head() { read -r line; echo $line; }\n"
    nodes = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": str(rank)}
    done = run_stubbed(head + stubs(ray=0, miras=code, sleep=0) + task()["run"], **nodes)
    assert done.returncode == code, done.stderr
    first, second, *_ = done.stdout.splitlines()
    if rank:
        assert (first, second) == (
            "ray health-check --address=10.0.0.1:6379",
            "ray start --address=10.0.0.1:6379",
        )
        assert "miras" not in done.stdout
    else:
        assert first == "ray start --head --port=6379"
        assert "--ray 10.0.0.1:6379" in second


def test_the_pods_share_the_disk_and_the_image():
    disk, job = manifests()
    assert disk["spec"]["accessModes"] == ["ReadWriteMany"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    pods = [spec["headGroupSpec"]["template"]["spec"], group()["template"]["spec"]]
    images = set()
    for pod in pods:
        (container,) = pod["containers"]
        images.add(container["image"])
        assert container["resources"]["limits"] == container["resources"]["requests"]
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert mount["mountPath"] == "/shared"
        assert mount["name"] == volume["name"]
        assert volume["persistentVolumeClaim"]["claimName"] == disk["metadata"]["name"]
    assert images == {task()["resources"]["image_id"].removeprefix("docker:")}


def test_the_workers_are_hosts_of_all_their_chips():
    found, pod = group(), group()["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = math.prod(map(int, topology.split("x")))
    assert int(limits["google.com/tpu"]) == chips == NODES["kubernetes"]["TPU"]
    assert int(limits["cpu"]) == NODES["kubernetes"]["CPU"]
    assert found["numOfHosts"] == 1
    assert found["replicas"] == found["minReplicas"] == found["maxReplicas"]
    (pool,) = [x for x in commands("sweeps.md", "gcloud") if "node-pools" in x]
    assert f"--num-nodes={found['replicas']} " in pool
    assert f"-{chips}t " in pool


def test_the_containers_have_the_version_of_ray_that_is_tested():
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert manifests()[1]["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert f"'ray[default]=={version}'" in PAGE


def test_ray_names_the_hosts_of_tpus_so(monkeypatch):
    tpu = pytest.importorskip("ray._private.accelerators.tpu")
    for chips in (8, 4):
        monkeypatch.setenv("TPU_ACCELERATOR_TYPE", f"v5litepod-{chips}")
        monkeypatch.setenv("TPU_NAME", "slice")
        monkeypatch.setenv("TPU_WORKER_ID", "0")
        found = tpu.TPUAcceleratorManager.get_current_node_additional_resources()
        name = f"TPU-v5litepod-{chips}-head"
        assert found == {"slice": 1, name: 1}
        assert f"`TPU: {chips}` and `{name}: 1`" in PAGE


def test_the_options_of_ray_exist():
    scripts = pytest.importorskip("ray.scripts.scripts")
    texts = (SBATCH, task()["run"], *commands("sweeps.md", "ray"), *commands("sweeps.md", "srun"))
    form = re.compile(r"\bray ((?:start|health-check|status)(?: --\S+(?: 6379| HEAD\S+)?)*)")
    lines = [line for text in texts for line in form.findall(text)]
    assert len(lines) == 8
    for line in lines:
        name, *options = shlex.split(line)
        scripts.cli.commands[name].make_context(name, options)
