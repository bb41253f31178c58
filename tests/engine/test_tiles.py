"""How the XLA backend lays out tokens changes nothing: smaller tiles, several devices."""

import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import pytest

import miras
from miras.backends.dispatch import BACKENDS, Entry
from miras.backends.xla.backend import Tiling, Xla
from miras.backends.xla.loop import scan_tiles
from miras.config import override
from miras.engine import step as chunk
from miras.engine.linear import following
from miras.engine.step import in_pairs
from miras.rule.options import ScanOptions
from miras.testing import random_inputs
from miras.testing.inputs import scan_with_loss

LABELS = {
    "one segment": {},
    "segments at chunks": {"segment_ids": jnp.asarray([[0] * 4 + [1] * 7] * 2)},
    "segments anywhere": {"segment_ids": jnp.asarray([[0] * 3 + [1] * 8] * 2)},
    "a mask": {"mask": jnp.asarray([[True] * 4 + [False] * 2 + [True] * 5] * 2)},
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["yaad", "memora", "titans_lmm", "lact", "gated_deltanet"])
def test_tiles_may_be_smaller_than_a_chunk(name, labels, monkeypatch):
    """Snapshots, links and what happens once a chunk stay where the chunk has them."""
    config = miras.preset(name)
    inputs = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=11, dk=4))
    run = functools.partial(
        scan_with_loss, config.rule, *inputs, chunk=4, exact=config.exact, **LABELS[labels]
    )
    want = run(backend="xla")
    monkeypatch.setitem(BACKENDS, "smaller", Entry(lambda: Xla(Tiling(tile=2))))
    chex.assert_trees_all_close(run(backend="smaller"), want, rtol=1e-9, atol=1e-9)


def joined(n, step, constants, memory, tiles, resets, **options):
    """The XLA loop over tiles of n chunks each."""
    assert resets is None

    def join(x, axis):
        x = jnp.moveaxis(x.reshape(-1, n, *x.shape[1:]), 1, axis)
        return x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])

    def apart(x):
        x = x.reshape(*x.shape[:3], n, -1, *x.shape[4:])
        return jnp.moveaxis(x, 3, 1).reshape(-1, *x.shape[1:3], *x.shape[4:])

    streams = ("q", "k", "v", "k_write", "gates")
    several = {name: jax.tree.map(lambda x: join(x, 3), getattr(tiles, name)) for name in streams}
    several |= {"write": join(tiles.write, 2), "chunk_end": tiles.chunk_end[n - 1 :: n]}
    several = tiles._replace(**several)
    memory, y, loss = scan_tiles(step, constants, memory, several, resets, **options)
    return memory, apart(y), apart(loss)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("changes", "n"), [((), 3), (("memory=matrix",), 2), (("algorithm=nesterov",), 2)], ids=str
)
def test_chunks_of_a_tile_form_momentum_once(changes, n, monkeypatch):
    """And nobody can tell: answers, the state after them, losses and all gradients are the same."""
    config = override(miras.preset("titans_lmm"), *changes)
    assert in_pairs(config.rule, ScanOptions())
    inputs = jax.tree.map(jnp.asarray, random_inputs(config.rule, B=2, T=24, dk=4))

    def run(inputs, backend):
        y, state, loss = scan_with_loss(config.rule, *inputs, chunk=4, exact=False, backend=backend)
        kept = y, state, loss
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves((y, state.A, state.S, loss))), kept

    def both(backend):
        return jax.value_and_grad(run, has_aux=True)(inputs, backend)

    want = both("xla")
    forms = []
    monkeypatch.setattr(chunk, "following", lambda *steps: forms.append(1) or following(*steps))
    loop = functools.partial(joined, n)
    monkeypatch.setitem(BACKENDS, f"{n} joined", Entry(lambda: Xla(Tiling(loop=loop))))
    chex.assert_trees_all_close(both(f"{n} joined"), want, rtol=1e-9, atol=1e-9)
    assert forms


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
def test_rows_on_two_devices(name):
    """Inner gradients are each device's own, outer ones by W0 summed over both."""
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED, name]
    subprocess.run(command, check=True, env=environment, timeout=300)
