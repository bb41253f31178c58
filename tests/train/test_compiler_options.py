"""Options of compilers: which chip has which, what a config changes, and that they are known."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import Mesh

from miras.config import config_hash
from miras.errors import ConfigError
from miras.parallel import make_mesh
from miras.train.compiler_options import compiler_options
from miras.train.program import TrainingProgram


def mesh(kind: str, count: int, platform: str = "tpu") -> Any:
    device = types.SimpleNamespace(platform=platform, device_kind=kind)
    return types.SimpleNamespace(devices=np.array([device] * count))


def test_only_tpus_have_options_of_their_own():
    assert compiler_options(mesh("cpu", 8, "cpu"), 2, {}) == {}
    assert compiler_options(mesh("TPU v5 lite", 1), 1, {}) == {}
    assert "xla_enable_async_all_gather" in compiler_options(mesh("TPU v5 lite", 4), 1, {})
    assert compiler_options(mesh("TPU v6 lite", 1), 1, {}) == {
        "xla_tpu_scoped_vmem_limit_kib": "98304"
    }
    two = compiler_options(mesh("TPU v5", 8), 2, {})
    assert "xla_tpu_enable_data_parallel_all_reduce_opt" in two


def test_a_config_replaces_adds_and_removes():
    given = {"xla_tpu_scoped_vmem_limit_kib": "", "mine": "1"}
    assert compiler_options(mesh("TPU v6 lite", 1), 1, given) == {"mine": "1"}
    given = {"xla_tpu_scoped_vmem_limit_kib": "5"}
    assert compiler_options(mesh("TPU v6 lite", 1), 1, given) == given


def test_an_unknown_option_is_an_error_and_no_hash_depends_on_options(tiny):
    config = tiny('compiler_options={"xla_no_such": "1"}')
    assert config == tiny("compiler_options.xla_no_such=1")
    assert config_hash(config) == config_hash(tiny())
    with pytest.raises(ConfigError, match="no option 'xla_no_such': correct it"):
        TrainingProgram(config, make_mesh(config.mesh)).compile()


def test_the_compiler_of_tpus_knows_them(libtpu):
    """One product on two chips of a v5e, and on a v6e."""
    for topology in ("v5e:2x2", "v6e:2x2"):
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
        chips = Mesh(np.array(found.devices), ("data",))
        options: Any = compiler_options(chips, 2, {})
        whole = jax.sharding.NamedSharding(chips, jax.sharding.PartitionSpec("data"))
        x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=whole)
        lowered = jax.jit(lambda x: x @ x).trace(x).lower(lowering_platforms=("tpu",))
        assert len(options) >= 7
        lowered.compile(compiler_options=options)
        with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option: 'no_such'"):
            lowered.compile(compiler_options=options | {"no_such": "true"})
