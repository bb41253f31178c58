"""Models on meshes of eight virtual devices have the loss and gradient of one device."""

import json

import pytest

from benchmarks.mesh_values import RESULTS, table
from tests.parallel.mesh_cases import MESHES, MODELS, in_a_process

EPS = 2.0**-23
DEFAULT = {
    "yaad": ("fsdp_seq_tensor",),
    "gated_deltanet": ("data_fsdp_tensor",),
    "titans_mac": ("fsdp_tensor",),
    "log_linear_mamba2": ("data",),  # its loop calls `miras.scan`
}
# Rates and decays of self-modifying memories are read from the answers of all heads.
INNER = {"hope": {"all-gather", "all-reduce"}}
REST = [(model, mesh) for model in MODELS for mesh in MESHES if mesh not in DEFAULT.get(model, ())]


def _check(model, differences):
    differences = dict(differences)
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
def test_a_mesh_has_the_loss_and_gradient_of_one_device(model, python):
    _check(model, in_a_process(model, DEFAULT[model], python))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "mesh"), REST)
def test_any_mesh_has_the_loss_and_gradient_of_one_device(model, mesh, python):
    _check(model, in_a_process(model, [mesh], python))


def test_the_kept_differences_are_within_the_same_bounds():
    kept = json.loads(RESULTS.read_text())
    assert set(kept) <= set(MODELS)
    for model, differences in kept.items():
        assert set(differences) == {*MESHES, "rounding"}
        _check(model, differences)
    assert table(kept) in RESULTS.with_suffix(".md").read_text()
