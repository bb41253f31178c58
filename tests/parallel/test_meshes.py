"""Models on meshes of eight virtual devices have the loss and gradient of one device."""

import json
import os
import subprocess
import sys

import pytest

from tests.parallel.mesh_cases import MESHES, MODELS

EPS = 2.0**-23
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",  # compiling takes longer than the step
    "--xla_llvm_disable_expensive_passes=true",
)
DEFAULT = {
    "yaad": ("fsdp_tensor", "fsdp_seq_tensor"),
    "gated_deltanet": ("data_fsdp_tensor",),
    "titans_mac": ("fsdp_tensor",),
}
# Rates and decays of self-modifying memories are read from the answers of all heads.
INNER = {"hope": {"all-gather", "all-reduce"}}
REST = [(model, mesh) for model in MODELS for mesh in MESHES if mesh not in DEFAULT.get(model, ())]


def _differences(model, meshes):
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.mesh_cases", model, *meshes],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _check(model, meshes):
    differences = _differences(model, meshes)
    rounding = differences.pop("rounding")  # what one rounding of every parameter changes
    for mesh, found in differences.items():
        # Sums over 256 tokens in another order: sqrt(256) roundings.
        assert found["loss"] < 16 * max(EPS, rounding["loss"]), (mesh, found)
        assert found["gradient"] < 4 * rounding["gradient"], (mesh, found, rounding)
        if "tensor" not in mesh:  # devices that split rows alone exchange nothing inside a memory
            assert not found["inner"], (mesh, found)
        elif model in INNER:
            assert set(found["inner"]) <= INNER[model], (mesh, found)


@pytest.mark.slow
@pytest.mark.parametrize("model", DEFAULT)
def test_a_mesh_has_the_loss_and_gradient_of_one_device(model):
    _check(model, DEFAULT[model])


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "mesh"), REST)
def test_any_mesh_has_the_loss_and_gradient_of_one_device(model, mesh):
    _check(model, [mesh])
