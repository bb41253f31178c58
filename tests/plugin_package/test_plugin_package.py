"""Parts that only a plugin has run everywhere, and are measured and described as miras's own."""

import dataclasses

import numpy as np
import pytest

import miras
from miras.analysis.costs import costs
from miras.analysis.equation import equations
from miras.backends.pallas.ahead_of_time import compile_ahead
from miras.backends.pallas.gpu.plan import RegisterBudget
from miras.cli.main import main
from miras.config import plugins
from miras.testing import (
    check_algorithm,
    check_bias,
    check_memory,
    check_retention,
    check_rule,
    random_inputs,
)
from tests.backends.pallas.calls import agree, gradient, shapes
from tests.plugin_package import Asymmetric, Gated, Leaky, QuasiHyperbolic

WHOLE = miras.Rule(Gated(), Asymmetric(), Leaky(link_every="chunk"), QuasiHyperbolic())
LINEAR = miras.Rule(Gated(), Asymmetric(), "l2", QuasiHyperbolic())
BY_TOKEN = miras.Rule(Gated(), Asymmetric(), Leaky(), QuasiHyperbolic())
WINDOWED = miras.Rule(
    Gated(), Asymmetric(), "l2", {"kind": "omega", "window": 3, "weight": 0.5, "momentum": 0.9}
)
MASK = np.array([[True, False, True, True, False]])
REFINED = {"refine": 1, "segment_ids": np.array([[0, 0, 0, 1, 1]])}
PLUGIN = ("--plugin", "tests.plugin_package")
PARTS = ("memory=gated", "bias=asymmetric", "retention=leaky", "retention.link_every=chunk",
         "algorithm=quasi_hyperbolic")  # fmt: skip
TINY = ("width=16", "layers=1", "heads=1", "chunk=8", "remat=false", "sequence=16", "batch=2",
        "validation=0.2", "steps=2", "eval_batches=1", "log_every=1",
        "checkpoint_every=2")  # fmt: skip


@pytest.fixture(autouse=True)
def only_here(monkeypatch):
    """What a command loads stays out of the runs of other tests."""
    monkeypatch.setattr(plugins, "_modules", [])


def call(rule, **sizes):
    """Arguments of `agree` and `gradient`."""
    return {"rule": rule, "exact": False}, {"inputs": random_inputs(rule, **sizes)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        # The first two are compared with the reference in a kernel, below.
        pytest.param(WHOLE, {}, id="whole", marks=pytest.mark.exhaustive),
        pytest.param(LINEAR, REFINED, id="linear", marks=pytest.mark.exhaustive),
        pytest.param(BY_TOKEN, {"mask": MASK}, id="by token"),
        pytest.param(WINDOWED, {"mask": MASK}, id="windowed", marks=pytest.mark.exhaustive),
    ],
)
def test_xla_equals_the_reference_in_values_and_gradients(rule, options):
    check_rule(rule, T=5, chunk=3, **options)


@pytest.mark.parametrize("rule", [LINEAR, WINDOWED], ids=["linear", "windowed"])
def test_a_sequence_in_two_calls_is_the_sequence_in_one(rule):
    W0, *streams = random_inputs(rule, T=5, dtype=np.float32)

    def cut(a, b):
        q, k, v, gates = streams
        return *(x[:, a:b] for x in (q, k, v)), {name: x[:, a:b] for name, x in gates.items()}

    whole, _ = miras.scan(rule, W0, *streams, chunk=3)
    first, state = miras.scan(rule, W0, *cut(0, 2), chunk=3)
    second, _ = miras.scan(rule, W0, *cut(2, 5), chunk=3, state=state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)


@pytest.mark.parametrize("rule", [LINEAR, WINDOWED], ids=["linear", "windowed"])
def test_masked_tokens_gates_have_no_effect(rule):
    """NaN and infinity among them."""
    W0, q, k, v, gates = random_inputs(rule, T=5, dtype=np.float32)
    spoilt = {
        name: np.where(MASK.reshape(1, 5, *[1] * (x.ndim - 2)), x, np.nan)
        for name, x in gates.items()
    }
    want, _ = miras.scan(rule, W0, q, k, v, gates, mask=MASK, chunk=3)
    got, _ = miras.scan(rule, W0, q, k, v, spoilt, mask=MASK, chunk=3)
    np.testing.assert_array_equal(got, want)


def test_a_query_reads_with_its_own_gates():
    """`miras.read` gives the answer of the last token, and holds gates that are not given."""
    W0, q, k, v, gates = random_inputs(LINEAR, T=4, dtype=np.float32)
    y, state = miras.scan(LINEAR, W0, q, k, v, gates, chunk=4)
    of_last = {"width": gates["width"][:, -1:]}
    read = miras.read(LINEAR, W0, q[:, -1:], state, of_last)
    np.testing.assert_allclose(read, y[:, -1:], atol=1e-5)
    held = miras.read(LINEAR, W0, q[:, -1:], state)
    at_one = miras.read(LINEAR, W0, q[:, -1:], state, {"width": np.ones((1, 1, 2), np.float32)})
    np.testing.assert_allclose(held, at_one, atol=1e-6)
    assert np.abs(held - read).max() > 1e-4
    with pytest.raises(miras.ConfigError, match="has shape"):
        miras.read(LINEAR, W0, q, state, of_last)
    with pytest.raises(miras.ConfigError, match="width"):
        miras.read(LINEAR, W0, q, state, {"breadth": of_last["width"]})


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_in_the_tpu_interpreter():
    agree("tpu", *call(WHOLE, B=1, T=11, H=1, dk=4), chunk=8)


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
def test_in_the_gpu_interpreter():
    budget = RegisterBudget(one=2**40, all=2**40, blocks=2**40)
    agree("gpu", *call(LINEAR, B=1, T=6, H=1, dk=3), budget, chunk=4)


@pytest.mark.slow
@pytest.mark.tpu_aot
@pytest.mark.usefixtures("libtpu")
def test_compiles_for_a_tpu():
    static, arrays = call(WHOLE, B=1, T=64, H=1, dk=64, dtype=np.float32)
    function = gradient(static, chunk=32, backend="pallas")
    text = compile_ahead(function, shapes(arrays), chip="v5e").as_text()
    assert "miras_forward" in text
    assert "miras_backward" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "part"),
    [
        (check_bias, Asymmetric()),
        (check_algorithm, QuasiHyperbolic()),
        (check_retention, Leaky()),
        (check_memory, Gated()),
    ],
)
def test_each_part_keeps_the_contract(check, part):
    check(part, rules=0)


def test_equations_name_every_gate():
    told = equations(WHOLE)
    for symbol in ("scale_t", "ξ_t", "second_t", "leak_t", "ω_t", "η_t", "α_t", "μ_t"):
        assert symbol in told


def test_describe(capsys):
    assert main(["describe", "yaad", *PARTS, *PLUGIN]) == 0
    told = capsys.readouterr().out
    assert "asymmetric(scale=1.0, tilt=0.3)" in told
    assert "FLOPs" in told


@pytest.mark.slow
def test_a_run_is_trained_and_inspected(tmp_path, capsys):
    folder, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text("the memory reads the text. " * 200)
    command = ["train", "yaad", *PARTS, *TINY, *PLUGIN, "--data", str(text), "--out", str(folder)]
    assert main(command) == 0
    page = tmp_path / "page.html"
    assert main(["inspect", str(folder), "--text", "abc", "--out", str(page)]) == 0
    assert "leak" in page.read_text()


@pytest.mark.exhaustive  # tests/analysis/ablate/test_killed.py has a grid with a plugin
@pytest.mark.multiprocess
def test_a_grid_of_them_is_trained(tmp_path, capsys):
    folder, text = tmp_path / "grid", tmp_path / "text.txt"
    text.write_text("the memory reads the text. " * 200)
    axes = [word.replace("asymmetric", "asymmetric,l2") for word in PARTS]
    command = ["ablate", "yaad", *axes, *TINY, *PLUGIN, "--seeds", "1"]
    assert main([*command, "--data", str(text), "--out", str(folder), "--jobs", "2"]) == 0
    table = (folder / "table.md").read_text()
    assert "asymmetric" in table
    assert "| l2" in table


def test_costs_count_them():
    tiny = dataclasses.replace(miras.preset("yaad"), rule=WHOLE, width=16, heads=1, layers=1)
    assert costs(tiny).flops > 0
