"""How the XLA backend lays out tokens changes nothing: smaller tiles, several devices."""

import dataclasses
import functools
import subprocess

import chex
import jax
import jax.numpy as jnp
import pytest

import miras
from miras.backends.dispatch import BACKENDS, RegisteredBackend
from miras.backends.xla.backend import Tiling, Xla
from miras.backends.xla.tiling import tile_of
from miras.config import override
from miras.engine.joined_chunks import can_join, joined_step
from miras.engine.step import Tile
from miras.rule.options import ScanOptions
from miras.testing import random_inputs
from miras.testing.inputs import scan_with_loss
from tests.devices import environment

LABELS = {
    "one segment": {},
    "segments at chunks": {"segment_ids": jnp.asarray([[0] * 4 + [1] * 7] * 2)},
    "segments anywhere": {"segment_ids": jnp.asarray([[0] * 3 + [1] * 8] * 2)},
    "a mask": {"mask": jnp.asarray([[True] * 4 + [False] * 2 + [True] * 5] * 2)},
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["yaad", "memora", "titans_lmm", "lact", "gated_deltanet"])
@pytest.mark.sample(0.2)
def test_tiles_may_be_smaller_than_a_chunk(name, labels, monkeypatch):
    """Snapshots, links and what happens once a chunk stay where the chunk has them."""
    config = miras.preset(name)
    inputs = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=11, dk=4))
    run = functools.partial(
        scan_with_loss, config.rule, *inputs, chunk=4, exact=config.exact, **LABELS[labels]
    )
    want = run(backend="xla")
    monkeypatch.setitem(BACKENDS, "smaller", RegisteredBackend(lambda: Xla(Tiling(tile=2))))
    chex.assert_trees_all_close(run(backend="smaller"), want, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("read", "labels"),
    [
        ("snapshot", {}),
        ("snapshot", {"segment_ids": jnp.asarray([[0] * 70 + [1] * 90])}),
        ("token", {}),
    ],
    ids=("snapshot", "snapshot of segments", "token"),
)
def test_a_large_chunk_is_cut_in_tiles(read, labels):
    """Outputs, losses, the state and all gradients are those of the reference."""
    rule = dataclasses.replace(miras.preset("titans_lmm").rule, read=read)
    rule = dataclasses.replace(rule, memory={"kind": "matrix"})
    inputs = jax.tree.map(jnp.asarray, random_inputs(rule, B=1, T=160, H=1, dk=3))
    options = ScanOptions(chunk=132)
    assert tile_of(rule, options, 160) == 44

    def run(inputs, backend):
        y, state, loss = scan_with_loss(rule, *inputs, chunk=132, backend=backend, **labels)
        kept = y, state.A, state.S, loss
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(kept)), kept

    def both(backend):
        return jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=1)(inputs, backend)

    chex.assert_trees_all_close(both("xla"), both("reference"), rtol=1e-9, atol=1e-9)


def test_which_chunks_are_cut():
    """Large ones, in divisors that are not too small; never those that are tiles already."""
    rule = miras.preset("titans_lmm").rule
    sizes = {1024: 64, 2048: 64, 192: 64, 144: 48, 128: None, 257: None}
    assert {c: tile_of(rule, ScanOptions(chunk=c), 4096) for c in sizes} == sizes
    assert tile_of(rule, ScanOptions(chunk=1024), 100) is None
    delta = miras.preset("gated_deltanet").rule
    assert tile_of(delta, ScanOptions(chunk=1024, exact=True), 4096) is None


def in_joined_chunks(rule, options, n, step, constants, memory, tiles, resets, **_):
    """A loop over tiles that takes n chunks at once."""
    assert resets is None
    del step
    several = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]), tiles)

    def over_heads(constants, memory, *chunks):
        of_head = jax.vmap(
            functools.partial(joined_step, rule, options),
            (0, 0, *[Tile(0, 0, 0, 0, 0, None, None, None)] * n),
        )
        return of_head(constants, memory, *chunks)

    def body(memory, several):
        chunks = [jax.tree.map(lambda x, i=i: x[i], several) for i in range(n)]
        memory, read = jax.vmap(over_heads, (None, 0, *[0] * n))(constants, memory, *chunks)
        return memory, jax.tree.map(lambda *x: jnp.stack(x), *read)

    memory, read = jax.lax.scan(body, memory, several)
    y, loss = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), read)
    return memory, y, loss


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("changes", "n"), [((), 3), (("memory=matrix",), 2), (("algorithm=nesterov",), 2)], ids=str
)
def test_joined_chunks_equal_single_chunks(changes, n, monkeypatch):
    """Momentum formed once for n chunks: outputs, the state after them, losses and gradients."""
    config, options = override(miras.preset("titans_lmm"), *changes), ScanOptions(chunk=4)
    assert can_join(config.rule, options)
    inputs = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=24, dk=4))

    def run(inputs, backend):
        y, state, loss = scan_with_loss(config.rule, *inputs, chunk=4, exact=False, backend=backend)
        kept = y, state, loss
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((y, state.A, state.S, loss))), kept

    def both(backend):
        return jax.value_and_grad(run, has_aux=True)(inputs, backend)

    want = both("xla")
    loop = functools.partial(in_joined_chunks, config.rule, options, n)
    monkeypatch.setitem(BACKENDS, f"{n} joined", RegisteredBackend(lambda: Xla(Tiling(loop=loop))))
    chex.assert_trees_all_close(both(f"{n} joined"), want, rtol=1e-9, atol=1e-9)


SHARDED = """
import sys

import chex
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec as P

import miras
from miras.testing import random_inputs

config = miras.preset(sys.argv[1])
W0, *streams = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=11, dk=4, dtype="f4"))
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


def whole(W0, streams):
    y, _ = miras.scan(config.rule, W0, *streams, chunk=4, exact=config.exact)
    return jnp.sum(jnp.sin(y))


def sharded(W0, streams):
    on_one_device = lambda W0, streams: jax.lax.psum(whole(W0, streams), "data")
    specs = P(), P("data")
    return jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=P())(W0, streams)


want, got = (jax.jit(jax.value_and_grad(f, (0, 1)))(W0, streams) for f in (whole, sharded))
chex.assert_trees_all_close(got, want, rtol=2e-5, atol=2e-5)
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", ["titans_lmm", "gated_deltanet"])
def test_rows_on_two_devices(name, python):
    """Inner gradients are each device's own, outer ones by W0 summed over both."""
    command = [*python, "-c", SHARDED, name]
    subprocess.run(command, check=True, env=environment(2), timeout=300)
