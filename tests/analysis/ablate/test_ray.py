"""A grid on a Ray cluster of two local nodes."""

import contextlib
import os

import pytest

pytest.importorskip("ray")

from miras.analysis.ablate import ablate
from miras.analysis.ablate.ray_cluster import RayOptions, parse_resources, places
from miras.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@contextlib.contextmanager
def started():
    """A cluster whose head runs no cells, and its address."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(True, head_node_args={**NODE, "num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(**NODE, resources={"host": 1})
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_cluster_trains_each_run_once(fake, make, tmp_path, capsys):
    grid, out = make("bias=dot,l2"), tmp_path / "out"
    with started() as address:
        options = RayOptions(address, resources={"host": 1})
        ablate(grid, out, ray=options)
    told = capsys.readouterr().out
    assert "4/4  bias=" in told
    assert f" s on {os.uname().nodename} (node " in told
    assert all(len((run / "starts").read_text().splitlines()) == 1 for run in out.glob("runs/*"))


def test_ray_is_an_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'miras-jax\[ray\]'"):
        RayOptions()


def test_resources_have_names_with_colons():
    assert parse_resources("a:1, accelerator_type:T4:0.5") == {"a": 1, "accelerator_type:T4": 0.5}
    with pytest.raises(ConfigError, match="each name once"):
        parse_resources("a:1,a:1")


def test_the_cells_that_fit_on_a_node():
    options = RayOptions(cpus=2, resources={"host": 0.5})
    assert places({"Resources": {"CPU": 7, "host": 1}}, options) == 2
    assert places({"Resources": {"CPU": 7}}, options) == 0
