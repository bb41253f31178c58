"""Slices by their names: chips, hosts and what Google calls them."""

import pytest

from miras.errors import ConfigError
from miras.parallel.slices import GENERATIONS, mesh_of, parse_slice, slices_of


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
    assert parse_slice("2*v5e:16x16") == two
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


@pytest.mark.parametrize(
    ("name", "rows", "sizes"),
    [
        ("v5e-16", 128, (1, 16, 1, 1)),
        ("v5e-256", 128, (1, 128, 1, 2)),
        ("2xv5e-256", 128, (2, 64, 1, 4)),
        ("v5p-128", 48, (1, 16, 1, 4)),  # 16 of the 64 chips have 3 rows each
        ("h100-16", 16, (1, 16, 1, 1)),
    ],
)
def test_the_mesh_of_a_slice(name, rows, sizes):
    found = parse_slice(name)
    mesh = mesh_of(found, rows)
    assert tuple(mesh.sizes(found.devices).values()) == sizes
    assert mesh.slices == found.count


def test_slices_have_the_same_rows():
    with pytest.raises(ConfigError, match=r"data\.batch=127 must be a multiple of the 2 slices"):
        mesh_of(parse_slice("2xv5e-16"), 127)
