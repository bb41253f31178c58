"""`layer.kv_heads` of a memory: memories that several heads of queries read."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.costs import costs
from miras.layers import LayerConfig
from miras.layers.config import MemoryConfig
from miras.layers.memory_layer import MemoryLayer
from miras.mixers.costs import update_and_read_flops

RULES = {
    "gla": miras.preset("gla").rule,
    "yaad": miras.preset("yaad").rule,
    "gated_deltanet": miras.preset("gated_deltanet").rule,
}


def _repeated(params, shapes):
    """The parameters of a layer of 4 memories: those of 2, of which neighbours are equal."""

    def leaf(own, plain):
        axis = [n for n, (a, b) in enumerate(zip(own.shape, plain.shape)) if a != b]
        assert len(axis) <= 1
        return jnp.repeat(own, 2, axis=axis[0]) if axis else own

    return jax.tree.map(leaf, params, shapes)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.usefixtures("float64")
def test_neighbouring_queries_read_one_memory(name):
    layer = LayerConfig(
        conv=3, kv_heads=2, key_width=4, value_width=4, skip=True, activation="silu"
    )
    memory = MemoryConfig(RULES[name], chunk=4)
    own = MemoryLayer(memory, 8, 4, config=layer, rngs=nnx.Rngs(0))
    plain = MemoryLayer(
        memory, 8, 4, config=dataclasses.replace(layer, kv_heads=None), rngs=nnx.Rngs(1)
    )
    key = jax.random.key(2)
    params = jax.tree.map(
        lambda p: jnp.asarray(p, jnp.float64) + 0.1 * jax.random.normal(key, p.shape),
        nnx.to_pure_dict(nnx.state(own, nnx.Param)),
    )
    nnx.update(own, params)
    nnx.update(plain, _repeated(params, nnx.to_pure_dict(nnx.state(plain, nnx.Param))))
    x = np.random.default_rng(0).normal(size=(2, 10, 8))
    run = nnx.jit(lambda layer, x, state: layer(x, state=state)[:2])
    (y, after), (want, _) = run(own, x, None), run(plain, x, None)
    assert np.abs(want).max() > 1e-3
    np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-10)
    assert {leaf.shape[1] for leaf in jax.tree.leaves(after.memory) if leaf.ndim > 2} == {2}
    first, state = run(own, x[:, :7], None)
    second, _ = run(own, x[:, 7:], state)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), want, rtol=1e-9, atol=1e-10)


def test_half_of_the_memories_cost_half_of_the_state_and_of_the_updates():
    plain = miras.override(miras.preset("gla"), "heads=4", "layer.conv=0")
    grouped = miras.override(plain, "layer.kv_heads=2")
    a, b = costs(plain), costs(grouped)
    head = plain.width // 4
    kept = 2 * 4 * head * head  # a matrix and its snapshot, float32
    assert a.state_bytes - b.state_bytes == plain.layers * 2 * kept
    given = {"rule": plain.rule, "options": plain.options, "width": plain.width, "heads": 4}
    whole, half = (update_and_read_flops(layer=c.layer, **given) for c in (plain, grouped))
    assert (half.update, half.read) == (whole.update / 2, whole.read)
    projected = 2 * (a.parameters - b.parameters)
    starts = 2 * plain.layers * 2 * head * head
    assert a.flops - b.flops == pytest.approx(projected - starts + plain.layers * half.update)
    assert "k and v in 2 heads" in miras.equations(grouped)
