"""Whole train steps through the compiler of TPUs for many chips, on a machine without one."""

import functools
import json
import math
import re

import jax
import jax.numpy as jnp
import pytest

from benchmarks.meshes import CASES, RESULTS, Case, compiled, key, measure, table
from miras.attention.dispatch import fused
from miras.backends.pallas.ahead_of_time import topology_devices
from miras.parallel import MeshConfig, make_mesh
from miras.parallel.collectives import between_slices, collectives

pytestmark = [pytest.mark.tpu_aot, pytest.mark.slow]

TINY = ("layers=2", "width=256", "heads=4")
ROWS = ("model.vocab=1024", "chunk=64", "data.sequence=256", "data.batch=64", "dtype=bfloat16")
KEPT = json.loads(RESULTS.read_text())


def of_a_chip(leaf, sharding):
    """Bytes of an array of the state on a chip."""
    return leaf.dtype.itemsize * math.prod(sharding.shard_shape(leaf.shape))


def checked(case):
    """A compiled step and its program, after what holds on every mesh of rows and weights."""
    program, step = compiled(case)
    text = step.as_text()
    assert "miras_forward" in text
    assert "miras_backward" in text

    leaves = zip(jax.tree.leaves(program.shapes), jax.tree.leaves(program.shardings), strict=True)
    state = sum(of_a_chip(leaf, sharding) for leaf, sharding in leaves)
    assert step.memory_analysis().alias_size_in_bytes >= state  # all of it is donated

    found = collectives(text)
    assert max(c.depth for c in found) <= 1  # the loops over layers, if they are not unrolled
    assert "all-to-all" not in {c.kind for c in found}
    return program, text


def reduced(text, shape):
    """What a program reduces over chips of arrays that end in a shape."""
    sums = re.findall(r"= (.*) (?:all-reduce|reduce-scatter)(?:-start)?\(", text)
    return [found for types in sums for found in re.findall(rf"\w+\[(?:\d+,)*{shape}\]", types)]


@pytest.mark.usefixtures("libtpu")
def test_a_step_on_16_chips():
    _, text = checked(Case("yaad", "v5e:4x4", TINY, ROWS))
    assert not between_slices(text)
    # Gradients are summed over chips in float32, whatever the model's dtype.
    sums = re.findall(r"= (.*) (?:all-reduce|reduce-scatter)(?:-start)?\(", text)
    assert sums
    assert not any("bf16" in types for types in sums)
    # W0's gradient: the rows of a chip are added before, and the layers' loop is not unrolled.
    for shape in ("4,64,256", "4,256,64"):
        assert reduced(text, shape) == [f"f32[{shape}]"]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("libtpu")
def test_only_the_reduction_of_gradients_crosses_slices():
    program, text = checked(Case("yaad", "v5e:4x4", TINY, ROWS, slices=2))
    sent = between_slices(text)
    assert {kind for kind, _ in sent} == {"all-reduce"}
    gradient = sum(leaf.size for leaf in jax.tree.leaves(program.shapes.params)) * 4 / 16
    assert gradient < sum(size for _, size in sent) < 1.5 * gradient  # some are padded


@pytest.mark.exhaustive
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("case", CASES, ids=key)
def test_memory_of_whole_runs_is_that_kept(case):
    if key(case) not in KEPT:
        pytest.skip("no figures are kept: python -m benchmarks.meshes")
    kept, now = KEPT[key(case)], measure(case)
    assert now["peak"] <= 1.05 * kept["peak"]
    assert set(now["collectives"]) <= {"0", "1"}


def test_the_table_is_that_of_the_figures():
    assert set(KEPT) <= set(map(key, CASES))
    assert table(KEPT) in RESULTS.with_suffix(".md").read_text()


def test_attention_outside_of_scan_is_split_without_collectives(libtpu):
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), topology_devices("v5e:2x2"))
    by_head = jax.NamedSharding(mesh, jax.P("fsdp", None, "tensor"))
    x = jax.ShapeDtypeStruct((4, 256, 4, 64), jnp.bfloat16, sharding=by_head)
    attend = functools.partial(fused, window=128, segment=None, scale=0.125)
    with jax.set_mesh(mesh):
        lowered = jax.jit(attend).trace(x, x, x).lower(lowering_platforms=("tpu",))
    text = lowered.compile().as_text()
    assert "tpu_custom_call" in text
    assert collectives(text) == []
