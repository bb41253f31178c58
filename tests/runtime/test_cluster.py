"""Where a process finds its place among others, and what it says if it cannot."""

import socket

import pytest

from miras.errors import ConfigError
from miras.runtime.cluster import Cluster, connect, find

NAMES = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID",
         "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
         "JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_PORT", "KUBERNETES_SERVICE_HOST")  # fmt: skip


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def slurm(tasks, process):
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "node[003-004]",
        "SLURM_NTASKS": str(tasks),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": "0",
        "JAX_COORDINATOR_PORT": "8476",
    }


OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({}, (None, None, None), None),
        ({}, ("a:1", 2, 1), Cluster("a:1", 2, 1, True)),
        ({}, ("a:1", 1, 0), None),
        (slurm(1, 0), (None, None, None), None),
        (slurm(2, 1), (None, None, None), Cluster("node003:8476", 2, 1, False)),
        (slurm(2, 1), ("b:9", None, None), Cluster("b:9", 2, 1, False)),
        (OPEN_MPI | URI, (None, None, None), Cluster("10.96.0.1:65443", 2, 1, False)),
        (OPEN_MPI, ("a:1", None, None), Cluster("a:1", 2, 1, False)),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, (None, 2, 0), Cluster("a:1", 2, 0, False)),
    ],
)
def test_the_place_of_a_process(monkeypatch, environment, arguments, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = find(*arguments, 1.0)
    if found is not None and "orte" in "".join(environment):
        found = found._replace(coordinator=f"{found.coordinator.partition(':')[0]}:65443")
    assert found == expected


@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({}, ("a:1", None, None), "needs --processes N"),
        ({}, ("a:1", 2, None), "needs --process I"),
        ({}, (None, 2, 0), "needs --coordinator HOST:PORT"),
        (OPEN_MPI, (None, None, None), "needs --coordinator HOST:PORT"),
        ({}, ("a", 2, 0), "is not HOST:PORT"),
        ({}, ("a:70000", 2, 0), "is not HOST:PORT"),
        ({}, ("a:1", 2, 2), "--process 2 --processes 2"),
        (slurm("x", 0), (None, None, None), "cannot be read from the environment"),
    ],
)
def test_an_unclear_place_is_an_error(monkeypatch, environment, arguments, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        find(*arguments, 1.0)


def test_an_unreachable_coordinator_is_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = f"process 1 of 2 could not reach the coordinator {address} within 0.3 s .*refused"
    with pytest.raises(ConfigError, match=words):
        connect(address, 2, 1, 0.3)
    with pytest.raises(ConfigError, match="must be positive"):
        connect(address, 2, 1, 0.0)
