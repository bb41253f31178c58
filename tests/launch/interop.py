"""Checks of written files by the tools that read them; each runs in the environment of its tool.

    python interop.py TOOL FOLDER [COMMAND ...]

Commands are those of the documentation. Imports neither miras nor pytest, which these environments
lack.
"""

import argparse
import os
import pathlib
import shlex
import sys
import time
from typing import Any


def words_of(script: pathlib.Path) -> list[str]:
    """The last command of a shell script, as words."""
    lines = script.read_text().replace("\\\n", " ").splitlines()
    return shlex.split(lines[-1].removeprefix("exec "))


def parse_click(group: Any, words: list[str]) -> None:
    """Parse the words of a command of click, without running it."""
    context = group.make_context(words[0], list(words[1:]))
    while context.protected_args or context.args:
        left = [*context.protected_args, *context.args]
        if not hasattr(context.command, "resolve_command"):
            return  # what is left are its arguments
        name, command, rest = context.command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context)


def sky(folder: pathlib.Path, commands: list[list[str]]) -> None:
    """SkyPilot's own task loader, which knows accelerators by their names."""
    from sky import Task
    from sky.client.cli.command import cli

    os.chdir(folder)
    for words in commands:
        parse_click(cli, words)

    for path in sorted(folder.glob("*.sky.yaml")):
        task = Task.from_yaml(str(path))
        (found,) = task.resources
        recovery = found.job_recovery
        print(path.name, task.num_nodes, found.accelerators, found.image_id, recovery)
        assert recovery["recover_on_exit_codes"] == [75, 134, 137, 143]
        assert "miras train" in task.run
        tpu = next(iter(found.accelerators)).startswith("tpu-")
        assert str(found.cloud) == "GCP" if tpu else found.accelerators == {"H100": 8}


def sky_sweep(folder: pathlib.Path, commands: list[list[str]]) -> None:
    """The task of docs/sweeps.md: several slices of one host each."""
    from sky import Task
    from sky.client.cli.command import cli
    from sky.skylet.constants import SKY_REMOTE_RAY_PORT

    os.chdir(folder)
    for words in commands:
        parse_click(cli, words)
    task = Task.from_yaml("sweep.sky.yaml")
    (found,) = task.resources
    print(task.num_nodes, found.accelerators, found.zone, found.job_recovery)
    assert (task.num_nodes, found.accelerators) == (4, {"tpu-v5litepod-8": 1})
    assert found.job_recovery["recover_on_exit_codes"] == [137, 143]
    assert str(SKY_REMOTE_RAY_PORT) not in task.run


def kubernetes(folder: pathlib.Path, _: list[list[str]]) -> None:
    """The disk and the pods of docs/sweeps.md against the schemas of Kubernetes."""
    import kubernetes_validate
    import yaml

    disk, job = yaml.safe_load_all((folder / "sweep.k8s.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    templates = [group["template"] for group in cluster["workerGroupSpecs"]]
    for template in (cluster["headGroupSpec"]["template"], *templates):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
        kubernetes_validate.validate(pod, "1.33", strict=True)
        print("a pod of", template["spec"]["containers"][0]["name"])
    kubernetes_validate.validate(disk, "1.33", strict=True)


def xpk(folder: pathlib.Path, commands: list[list[str]]) -> None:
    """xpk's argument parser, and what it knows of the slice."""
    from xpk.core.system_characteristics import get_system_characteristics
    from xpk.parser.core import set_parser

    parser = argparse.ArgumentParser()
    set_parser(parser)
    for words in commands:
        parser.parse_args(words[1:])
    for path in sorted(folder.glob("*.xpk.sh")):
        program, *words = words_of(path)
        assert program == "xpk"
        args = parser.parse_args(words)
        system, code = get_system_characteristics(args)
        print(path.name, args.tpu_type, args.num_slices, system.topology, system.vms_per_slice)
        assert code == 0
        assert args.command.startswith("miras train")
        assert (args.max_restarts, args.restart_on_exit_codes) == ("100", "75")
        assert f"{system.topology}/{system.vms_per_slice}" in path.name.replace("_", "/")


def gcloud(folder: pathlib.Path, _: list[list[str]]) -> None:
    """The options as the messages of Cloud TPU's API, which is what gcloud sends."""
    from google.cloud import tpu_v2

    for path in sorted(folder.glob("*.gcloud.sh")):
        words = words_of(path)
        assert words[:5] == ["gcloud", "compute", "tpus", "queued-resources", "create"]
        options = dict(word.removeprefix("--").partition("=")[::2] for word in words[6:])
        key, _, script = options.pop("metadata-from-file").partition("=")
        node = tpu_v2.Node(
            accelerator_type=options.pop("accelerator-type"),
            runtime_version=options.pop("runtime-version"),
            service_account=tpu_v2.ServiceAccount(scope=[options.pop("scopes")]),
            metadata={key: (folder / script).read_text()},
        )
        spec = tpu_v2.QueuedResource.Tpu.NodeSpec(
            parent=f"projects/p/locations/{options.pop('zone')}", node=node
        )
        if "node-count" in options:
            spec.multislice_params = tpu_v2.QueuedResource.Tpu.NodeSpec.MultisliceParams(
                node_count=int(options.pop("node-count")),
                node_id_prefix=options.pop("node-prefix"),
            )
        else:
            spec.node_id = options.pop("node-id")
        found = tpu_v2.QueuedResource(tpu=tpu_v2.QueuedResource.Tpu(node_spec=[spec]))
        if "spot" in options:
            options.pop("spot")
            found.spot = tpu_v2.QueuedResource.Spot()
        assert not options, f"options without a field: {options}"
        assert tpu_v2.QueuedResource.from_json(tpu_v2.QueuedResource.to_json(found)) == found
        print(path.name, node.accelerator_type, spec.multislice_params.node_count)


def ray(folder: pathlib.Path, commands: list[list[str]]) -> None:
    """A job on a cluster of two nodes, whose first attempt is lost on one of them."""
    from ray.cluster_utils import Cluster
    from ray.job_submission import JobStatus, JobSubmissionClient
    from ray.scripts.scripts import cli

    for words in commands:
        parse_click(cli, words)
    stub = folder / "bin" / "miras"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\nlast() {{ shift $(($# - 1)); echo "$1"; }}\n'
        f'[ "$(last "$@")" = 0 ] && exit 0\n'
        f"[ -e {folder}/lost ] && exit 0\ntouch {folder}/lost\nexit 75\n"
    )
    stub.chmod(0o755)
    node = {"num_cpus": 2, "num_gpus": 8, "object_store_memory": 80 * 2**20}
    os.environ["PATH"] = f"{stub.parent}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    cluster = Cluster(True, head_node_args={**node, "include_dashboard": True})
    try:
        cluster.add_node(**node)
        client = JobSubmissionClient(f"http://{cluster.head_node.webui_url}")
        (path,) = folder.glob("*.ray.py")
        environment = {"working_dir": str(path.parent), "excludes": ["bin", "calls", "lost"]}
        job = client.submit_job(entrypoint=f"python {path.name}", runtime_env=environment)
        end = time.monotonic() + 300
        while not (status := client.get_job_status(job)).is_terminal():
            assert time.monotonic() < end, client.get_job_logs(job)
            time.sleep(1)
        assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
        calls = sorted((folder / "calls").read_text().splitlines())
        print(calls)
        assert len(calls) == 4
        assert all("--coordinator" in call and "--processes 2" in call for call in calls)
        assert [call[-1] for call in calls] == ["0", "0", "1", "1"]
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    checks = (sky, sky_sweep, kubernetes, xpk, gcloud, ray)
    {check.__name__: check for check in checks}[sys.argv[1]](
        pathlib.Path(sys.argv[2]), [shlex.split(line) for line in sys.argv[3:]]
    )
