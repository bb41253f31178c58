"""Documents of rows that a layer compacts, under the promise that they begin at chunks.

A document of n tokens has ceil(n / C) tiles. Compacted ones are no longer at multiples of C, but
are no longer than they were, so that the tiles of the promise hold them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.layers import LayerConfig, MemoryConfig, MemoryLayer

CHUNK, WIDTH = 4, 8


@pytest.mark.usefixtures("float64")
def test_masked_documents_that_began_at_chunks_fit_their_tiles():
    rule = miras.Rule(retention="l2", algorithm=miras.optim.GD(lr=0.3))  # pyright: ignore
    memory = MemoryConfig(rule, chunk=CHUNK)
    made = MemoryLayer(memory, WIDTH, 1, config=LayerConfig(conv=0), rngs=nnx.Rngs(0))
    graph, params = nnx.split(made)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 5 * CHUNK, WIDTH)))
    ids = np.repeat([[1, 2, 2, 3, 4]], CHUNK, axis=1).repeat(6, axis=0)
    mask = rng.random(ids.shape) < np.array([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])[:, None]

    @jax.jit
    def outputs(params):
        layer = nnx.merge(graph, params)
        call = {"segment_ids": ids, "mask": mask}
        return [layer(x, **call, segments_at_chunks=promised)[0] for promised in (True, False)]

    promised, plain = outputs(params)
    np.testing.assert_allclose(promised, plain, rtol=1e-9, atol=1e-10)
    assert np.any(promised)
