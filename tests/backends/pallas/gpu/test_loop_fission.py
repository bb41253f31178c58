"""A program in blocks of its hidden units is the program, and what cannot be one is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.backends.pallas.gpu.loop_fission import in_blocks, in_one_phase
from miras.backends.pallas.gpu.registers import address_bytes
from miras.backends.pallas.trace.hidden_blocks import HiddenBlocks
from miras.backends.pallas.trace.jaxprs import evaluate
from miras.backends.pallas.trace.program import trace
from miras.backends.pallas.trace.shared_lowerings import CALLS

BLOCKS = HiddenBlocks(count=8, block=2)


def several(w, x):
    """Sums, norms and numbers of units, in phases that need each other; one result is an input."""
    z = jnp.tanh(x @ w + jnp.arange(8.0))
    y = z @ w.T - jnp.max(z, axis=1, keepdims=True)
    g = x.T @ (jnp.sum(y) * z / jnp.sum(z**2))
    return w - g, y, jnp.min((x @ g).reshape(1, 2, 8), axis=2), w


def evaluated(program, *args, **options):
    """What it writes, blocks put together."""
    hidden, found = program.blocks, []

    def written(shape):
        found.append({})
        return lambda value, *at, out=found[-1]: out.update({at: value})

    def read(x):
        blocks = x if hidden is None else hidden.split(x, 0)
        return lambda *at: blocks[tuple(map(int, at))] if at else blocks

    writes = jax.tree.map(written, program.results)
    scratch = [np.zeros(s.shape, s.dtype) for s in program.scratch()]
    run = functools.partial(evaluate, CALLS)
    with jax.disable_jit():  # so that loops run, and write, here
        program(run, [*program.captured(), *map(read, args)], writes, scratch, **options)
    out = []
    for shape, blocks in zip(jax.tree.leaves(program.results), found, strict=True):
        if () in blocks:
            out.append(blocks[()])
        else:
            stacked = jnp.stack([blocks[key] for key in sorted(blocks, key=lambda k: int(k[0]))])
            out.append(hidden.merge(stacked, 0, shape.shape))
    return out


def test_blocks_are_the_whole():
    """In float32, of which sums in another order are 1e-6 apart."""
    random = np.random.default_rng(0)
    w, x = jnp.asarray(random.normal(size=(4, 8))), jnp.asarray(random.normal(size=(2, 4)))
    program = trace(several, w, x)
    found = in_blocks(program, BLOCKS)
    assert not isinstance(found, str), found
    assert len(found.phases) > 2
    ways = found, in_one_phase(program), in_one_phase(program, looped=True)
    for got in (evaluated(way, w, x) for way in ways):
        for one, want in zip(got, several(w, x), strict=True):
            np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-5)


def test_each_block_of_a_loop_waits_before_it_reads():
    """Else a compiler reads before a loop of sums what all blocks share, and keeps it."""
    x, waits = jnp.ones((2, 4)), []
    found = in_blocks(trace(lambda w, x: jnp.sum(x @ w, axis=1), jnp.ones((4, 8)), x), BLOCKS)
    evaluated(found, jnp.ones((4, 8)), x, between=lambda: waits.append(0))
    assert len(waits) == 2 * len(found.phases) + BLOCKS.blocks


def test_addresses_are_of_a_block_of_each_array():
    found = in_blocks(
        trace(lambda w, x: (x @ w, jnp.sum(x)), jnp.ones((4, 8)), jnp.ones((2, 4))), BLOCKS
    )
    sizes = []
    found.addresses(lambda aval: sizes.append(aval.shape) or 1)
    assert sorted(sizes) == [(), (2, 2), (2, 4), (4, 2)]
    assert found.addresses(address_bytes) == 3 * 256 * 8


@pytest.mark.parametrize("looped", [False, True])
def test_results_of_one_tile_are_written_when_they_are_computed(looped):
    """So they leave their registers; a kernel of all tiles writes at the end."""
    program = in_one_phase(trace(lambda x: (x + 1, jnp.cos(x), x), jnp.zeros(4)), looped=looped)
    events = []

    def lower(eqn, inputs, inner):
        events.append(eqn.primitive.name)
        return CALLS(eqn, inputs, inner)

    writes = tuple(
        lambda value, name=name: events.append(name) for name in ("first", "second", "x")
    )
    program(functools.partial(evaluate, lower), (jnp.zeros(4),), writes)
    if looped:
        assert events == ["x", "add", "cos", "first", "second"]
    else:
        assert events == ["x", "add", "first", "cos", "second"]
    size = program.peak_live_size(lambda aval: aval.size)
    assert size == (12 if looped else 8)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda w: w.reshape(8, 4), "reshape"),  # entries leave their unit
        (lambda w: jnp.cumsum(w, axis=1), "cumsum"),
        (lambda w: w[:, :3], "slice"),
        (lambda w: w.T @ w, "dot_general"),
        (lambda w: jnp.max(w.astype(int), axis=1), "reduce_max"),
    ],
)
def test_what_has_no_blocks_is_refused(function, named):
    found = in_blocks(trace(function, jnp.zeros((4, 8))), BLOCKS)
    assert found == f"{named!r} cannot be had in blocks of its 8 hidden units"
