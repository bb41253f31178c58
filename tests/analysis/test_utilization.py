"""Model FLOPs of a step by hand, and peaks of devices by their names."""

import pytest

import miras
from miras.analysis.utilization import chip_of, model_flops
from miras.config import override
from miras.train import RunConfig
from miras.train.interval_means import IntervalMeans, Utilization


def test_model_flops_of_a_transformer_by_hand():
    words = "width=64", "heads=4", "layers=3", "vocab=512", "mlp_ratio=4", "sequence=128", "batch=2"
    config = override(RunConfig(model=miras.preset("transformer")), *words, "accumulate=2")
    layer = 4 * 64 * 64 + 3 * 64 * 256  # queries, keys, values and output; SwiGLU
    tokens = 2 * 2 * 128
    attention = 3 * 2 * 2 * 64 * (128 // 2)  # scores and sums, of half a row on average
    by_hand = 3 * tokens * (2 * (3 * layer + 64 * 512) + attention)
    assert model_flops(config) == pytest.approx(by_hand, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v5p", 459e12), ("TPU v6 lite", 918e12),
     ("NVIDIA H200", 989e12), ("cpu", None), ("NVIDIA H100 PCIe", None)],
)  # fmt: skip
def test_peaks_are_known_by_the_name_of_a_device(kind, peak):
    chip = chip_of(kind)
    assert (None if chip is None else chip.flops) == peak


def test_utilization_is_the_share_of_all_devices(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    means = IntervalMeans(4, Utilization(step_flops=1e12, peak=1e12))
    means._steps = 2  # of a step each second
    clock[0] = 2.0
    assert means.means()["model_flops_utilization"] == pytest.approx(0.25)
    assert "model_flops_utilization" not in IntervalMeans(4).means()
