"""Slices by their names: chips, hosts and what Google calls them."""

import pytest

from miras.errors import ConfigError
from miras.parallel.slices import GENERATIONS, parse_slice, slices_of


@pytest.mark.parametrize(
    ("name", "shape", "hosts", "accelerator", "topology"),
    [
        ("v5e-16", (4, 4), 4, "v5litepod-16", "v5e:4x4"),
        ("v5litepod-256", (16, 16), 64, "v5litepod-256", "v5e:16x16"),
        ("v5e:2x4", (2, 4), 1, "v5litepod-8", "v5e:2x4"),
        ("v6e-64", (8, 8), 16, "v6e-64", "v6e:8x8"),
        ("v5p-128", (4, 4, 4), 16, "v5p-128", "v5p:4x4x4"),  # 128 TensorCores
        ("v5p:2x2x1", (2, 2, 1), 1, "v5p-8", "v5p:2x2x1"),
        ("V4-32", (2, 2, 4), 4, "v4-32", "v4:2x2x4"),
    ],
)
def test_a_slice_of_tpus(name, shape, hosts, accelerator, topology):
    found = parse_slice(name)
    assert (found.shape, found.hosts, found.count) == (shape, hosts, 1)
    assert (found.accelerator, found.topology) == (accelerator, topology)
    assert found.chips_per_host * hosts == found.chips == found.devices


def test_several_slices_and_hosts_of_gpus():
    two = parse_slice("2xv5e-256")
    assert (two.count, two.chips, two.devices, two.name) == (2, 256, 512, "2xv5e-256")
    gpus = parse_slice("h200-16")
    assert (gpus.hosts, gpus.chips_per_host, gpus.name) == (2, 8, "h200-16")
    assert parse_slice("a100-1").hosts == 1


def test_every_name_and_topology_is_read_back():
    for generation in GENERATIONS.values():
        for each in slices_of(generation):
            assert parse_slice(each.name) == parse_slice(each.topology) == each


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5e-17", ["'v5e-17'", "did you mean 'v5e-1", "v5e-16"]),
        ("v5p-4", ["'v5p-4'", "v5p-8"]),
        ("v5e:3x3", ["'v5e:3x3'", "v5e:4x4"]),
        ("v9-8", ["'v9'", "v5e"]),
        ("v5e", ["'v5e'", "v5e-256"]),
        ("", ["''"]),
        ("h100-12", ["'h100-12'", "h100-16"]),
        ("0xv5e-16", ["0 slices"]),
        ("2xh100-8", ["whole hosts"]),
    ],
)
def test_what_is_no_slice(name, words):
    with pytest.raises(ConfigError) as told:
        parse_slice(name)
    for word in words:
        assert word in str(told.value)
