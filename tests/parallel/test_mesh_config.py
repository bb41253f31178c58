"""The sizes of a mesh, the sharding rules, and the errors of what does not fit."""

import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from miras.cli.runs import run_config
from miras.config import override
from miras.errors import ConfigError
from miras.parallel import MeshConfig, make_mesh
from miras.parallel.batches import local_rows, to_devices
from miras.parallel.collectives import collectives
from miras.parallel.config import AXES
from miras.parallel.rules import parameter_spec
from miras.train.config import RunConfig
from miras.train.program import TrainingProgram
from miras.train.runs.mutable_fields import resumed_config, short_hash
from miras.train.sharding import check_fits, check_replicated


def abstract_mesh(**sizes):
    shape = tuple(sizes.get(name, 1) for name in AXES)
    return jax.sharding.AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize(
    ("config", "devices", "sizes"),
    [
        (MeshConfig(), 1, (1, 1, 1, 1)),
        (MeshConfig(), 16, (1, 16, 1, 1)),
        (MeshConfig(data=2, tensor=2), 16, (2, 4, 1, 2)),
        (MeshConfig(data=-1, fsdp=4, seq=2), 16, (2, 4, 2, 1)),
        (MeshConfig(data=4, slices=2), 16, (4, 4, 1, 1)),
    ],
)
def test_an_axis_of_minus_one_fills_the_devices(config, devices, sizes):
    assert tuple(config.sizes(devices).values()) == sizes


@pytest.mark.parametrize(
    ("config", "devices", "words"),
    [
        (MeshConfig(fsdp=8), 4, "mesh.fsdp=8 .* = 8 does not fit 4 devices: lower the product"),
        (MeshConfig(tensor=3), 8, "mesh.tensor=3 = 3 does not fit 8 devices: .* must divide 8"),
        (MeshConfig(fsdp=2), 8, "does not fit 8 devices: set one of mesh.data and mesh.fsdp"),
        (MeshConfig(data=-1, fsdp=8, slices=2), 8, "must be a multiple of mesh.slices=2"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_an_error(config, devices, words):
    with pytest.raises(ConfigError, match=words):
        config.sizes(devices)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"data": 0}, "mesh.data=0 must be at least 1, or -1"),
        ({"seq": -1}, "mesh.seq=-1 must be at least 1."),
        ({"data": -1, "fsdp": -1}, "cannot both fill"),
        ({"data": 3, "slices": 2}, "mesh.data=3 must be a multiple of mesh.slices=2"),
        ({"max_replicated": 1.5}, r"must lie in \[0, 1\]"),
    ],
)
def test_values_out_of_range_are_errors(fields, words):
    with pytest.raises(ConfigError, match=words):
        MeshConfig(**fields)


def test_axes_are_set_by_their_names_and_data_stays_that_of_the_run():
    config = override(RunConfig(run_config("yaad", [], None).model), "tensor=2", "data.batch=4")
    assert (config.mesh.tensor, config.data.batch) == (2, 4)


@pytest.mark.parametrize(
    ("shape", "names", "matrix", "spec"),
    [
        ((32000, 768), ("vocab", "embed"), True, ("tensor", "fsdp")),
        ((257, 768), ("vocab", "embed"), True, (None, "fsdp")),
        ((12, 768, 768), ("layers", "heads", "embed"), True, (None, "tensor", "fsdp")),
        ((12, 768), ("layers", "embed"), False, (None, None)),
        ((12, 4, 64, 256), ("layers", "heads", None, None), True, (None, "tensor", None, "fsdp")),
        ((12, 4, 6, 16), ("layers", "heads", None, None), True, (None, "tensor", None, "fsdp")),
        ((12, 4, 6, 10), ("layers", "heads", None, None), True, (None, "tensor", None, None)),
    ],
)
def test_parameters_are_split_by_their_names(shape, names, matrix, spec):
    sizes = {"data": 2, "fsdp": 8, "seq": 1, "tensor": 4}
    assert parameter_spec(shape, names, sizes, matrix=matrix) == PartitionSpec(*spec)


@pytest.mark.parametrize(
    ("sizes", "overrides", "words"),
    [
        ({"fsdp": 6}, (), "data.batch=8 cannot be split over mesh.data x mesh.fsdp=6: use 1, 2, 4"),
        ({"tensor": 8}, (), "model.heads=4 cannot be split over mesh.tensor=8: use 1, 2 or 4"),
        (
            {"tensor": 2, "seq": 4},
            (),
            "model.heads=4 cannot be split over mesh.tensor x mesh.seq=8",
        ),
        ({"seq": 3}, (), "data.sequence=256 cannot be split over mesh.seq=3"),
        (
            {"tensor": 4},
            ("pattern=M A", "attention.kv_heads=2"),
            "kv_heads=2 cannot be split over mesh.tensor=4: use 1 or 2",
        ),
        (
            {"tensor": 4},
            ("pattern=M N", "blocks.N=gated_deltanet", "blocks.N.heads=2"),
            r"model.blocks.N.heads=2 cannot be split over mesh.tensor=4",
        ),
    ],
)
def test_what_a_mesh_does_not_divide_is_named(sizes, overrides, words):
    config = run_config("yaad", list(overrides), None, rates="raw")
    with pytest.raises(ConfigError, match=words):
        check_fits(config, abstract_mesh(**sizes).shape)


def test_the_commands_of_the_page_fit_eight_devices():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    train = r"^miras train (\w+) (.*mesh.*?|data.batch=\d+)\s+#"
    commands = re.findall(train, text, re.MULTILINE)
    assert len(commands) == 4
    for preset, overrides in commands:
        config = run_config(preset, overrides.split(), None, rates="raw")
        check_fits(config, config.mesh.sizes(8))


def test_optimiser_state_is_split_as_its_parameters_and_replicated_bytes_are_bounded(monkeypatch):
    config = run_config("yaad", ["width=64", "layers=2"], None, rates="raw")
    mesh = abstract_mesh(fsdp=8)
    program = TrainingProgram(config, mesh)
    moments = jax.tree.leaves(program.shardings.opt_state)
    split = {sharding.spec for sharding in jax.tree.leaves(program.shardings.params)}
    assert {sharding.spec for sharding in moments} == split | {PartitionSpec()}  # of counts
    whole = jax.tree.map(
        lambda sharding: jax.NamedSharding(mesh, PartitionSpec()), program.shardings
    )
    monkeypatch.setattr("miras.train.sharding.LARGE", 1)
    with pytest.raises(ConfigError, match=r"100\.0% .* is not split over mesh.fsdp=8"):
        check_replicated(config.mesh, mesh, program.shapes, whole)
    all_whole = dataclasses.replace(config.mesh, max_replicated=1.0)
    check_replicated(all_whole, mesh, program.shapes, whole)


def test_the_mesh_is_no_part_of_a_run_identity():
    config = run_config("yaad", [], None, rates="raw")
    other = dataclasses.replace(config, mesh=MeshConfig(tensor=2))
    assert short_hash(config) == short_hash(other)
    assert resumed_config(config, other, 10, "runs/mine") == other


def test_a_batch_on_one_device_is_the_batch():
    mesh = make_mesh(devices=jax.devices()[:1])
    batch = {"inputs": np.arange(24).reshape(2, 4, 3)}
    assert local_rows(mesh, 4) == [0, 1, 2, 3]
    np.testing.assert_array_equal(to_devices(mesh, batch, 4)["inputs"], batch["inputs"])


TEXT = """HloModule jit_f

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %g = bf16[16,4]{1,0} all-gather(%x), dimensions={0}, metadata={op_name="jit(f)/while/body/dot"}
  ROOT %t = (s32[], f32[8,4]) tuple(%a, %b)
}

%branch (q: f32[2]) -> f32[2] {
  ROOT %r = f32[2]{0} all-reduce(%q), to_apply=%sum
}

ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %w = (s32[]) while(%i), body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %k = f32[2]{0} conditional(%z, %m, %n), branch_computations={%branch, %branch}
  %s = (f32[4]{0}, f32[8]{0}) reduce-scatter-start(%y), dimensions={0}
}
"""


def test_collectives_are_read_from_the_text_of_a_program():
    found = collectives(TEXT)
    assert [(x.kind, x.bytes, x.loops, x.runs) for x in found] == [
        ("all-gather", 128, 1, 5),
        ("all-reduce", 8, 0, 1),
        ("all-reduce", 8, 0, 1),
        ("reduce-scatter", 32, 0, 1),
    ]
    assert found[0].name == "jit(f)/while/body/dot"


def test_the_program_of_one_device_has_no_collectives():
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1, 1), AXES)
    with jax.set_mesh(mesh):
        text = jax.jit(lambda x: jnp.sum(x @ x.T)).lower(jnp.ones((4, 4))).compile().as_text()
    assert collectives(text) == []
