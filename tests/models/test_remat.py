"""Rematerialisation policies: the same gradients, and what each keeps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from miras import ConfigError, config_hash, override, preset
from miras.models import LanguageModel, remat
from tests.tolerances import tolerance

SMALL = ("width=16", "heads=2", "vocab=7", "chunk=4", "layers=2")
POLICIES = ["none", "full", "minimal", "save_memory_outputs", "offload"]


def gradients(name, policy, length=64, words=()):
    """The compiled gradient of a sum of features, and its arguments."""
    config = override(preset(name), *SMALL, *words, f"remat={policy}")
    graph, params = nnx.split(LanguageModel(config, nnx.Rngs(0)), nnx.Param)
    params = nnx.to_pure_dict(params)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (2, length)))

    def loss(params, tokens):
        return jnp.sum(jnp.sin(nnx.merge(graph, params).features(tokens)))

    return jax.jit(jax.grad(loss)).lower(params, tokens).compile(), (params, tokens)


def test_policies_have_the_same_gradients_and_keep_different_amounts():
    found, sizes = {}, {}
    for policy in POLICIES:
        compiled, args = gradients("linear_attention", policy, words=("pattern=M A", "layers=12"))
        found[policy] = compiled(*args)
        memory: Any = compiled.memory_analysis()
        sizes[policy] = memory.temp_size_in_bytes
    for policy in POLICIES[1:]:
        for a, b in zip(jax.tree.leaves(found[policy]), jax.tree.leaves(found["none"])):
            scale = float(jnp.max(jnp.abs(b)))
            np.testing.assert_allclose(a, b, atol=tolerance(np.float32, 2 * 64 * 16, 8) * scale)
    assert sizes["full"] < sizes["save_memory_outputs"] < sizes["minimal"] < sizes["none"]


def loops(policy):
    """The loops over tiles in the gradient of a matrix memory: forward, again, and backward."""
    compiled, _ = gradients("linear_attention", policy, words=("backend=xla",))
    return (compiled.as_text() or "").count(" while(")


@pytest.mark.slow
def test_a_policy_that_keeps_memories_does_not_run_them_again():
    assert loops("save_memory_outputs") == loops("full") - 1


def test_names_of_earlier_values_are_the_same_config():
    config = preset("yaad")
    assert override(config, "remat=full") == override(config, "remat=true") == config
    assert override(config, "remat=none") == override(config, "remat=false")
    assert config_hash(override(config, "remat=full")) == config_hash(config)
    with pytest.raises(ConfigError, match="remat='some' is not"):
        override(config, "remat=some")


def test_offload_needs_memory_on_the_host(monkeypatch):
    class Device:
        def addressable_memories(self):
            return [jax.devices()[0].default_memory()]

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    with pytest.raises(ConfigError, match=r"use model\.remat=save_memory_outputs"):
        remat.check("offload")
