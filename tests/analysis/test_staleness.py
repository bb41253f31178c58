"""`miras staleness`: what it measures, what it leaves out, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.staleness.measure import (
    layer_inputs,
    measure,
    memory_outputs,
    new_parameters,
)
from miras.analysis.staleness.memories import memories
from miras.analysis.staleness.plan import ONLINE, ChunkSetting, OwnSettings, make_plan
from miras.analysis.staleness.text import HeldOutText, fitting, held_out
from miras.cli.main import main
from miras.data import DataConfig, make_loader, make_tokenizer
from miras.errors import ConfigError
from miras.layers.norm import l2_normalise
from miras.models.blocks import Block
from miras.train import RunConfig
from miras.train.checkpoints.checkpointer import Checkpoints
from miras.train.optimizer import decay_mask, make_optimizer
from miras.train.runs.run_folder import RunFolder
from miras.train.state import create, structure

pytestmark = pytest.mark.usefixtures("own_cache")

SMALL = ("width=16", "heads=2", "remat=false")
FAST = (*SMALL, "layers=1", "chunk=8", "validation=0.3")
ROUNDING = 1e-5
BYTES = make_tokenizer("byte")


def rows(length: int) -> HeldOutText:
    tokens = np.random.default_rng(0).integers(0, 16, (2, length + 1)).astype(np.int32)
    ones = np.ones((2, length))
    batch = {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "segment_ids": ones.astype(np.int32),
        "mask": ones.astype(bool),
        "target_bytes": ones.astype(np.float32),
    }
    return HeldOutText(batch, 2, length)


def measured(config, chunks, refines, text):
    params, plan = new_parameters(config, seed=0), make_plan(config, chunks, refines)
    return plan, params, measure(config, params, plan, text)


@pytest.mark.slow
def test_a_deep_memory_nears_online_with_every_sweep():
    words = ("vocab=32", "layers=1", "chunk=8", "algorithm.lr=0.2", "memory.expansion=2")
    config = miras.override(miras.preset("titans_lmm"), *SMALL, *words)
    plan, _, cells = measured(config, (1, 4), (0, 1, 3), rows(16))
    assert plan.reason is None
    assert not plan.exact
    assert list(cells) == [ONLINE, ChunkSetting(8), *(ChunkSetting(4, n) for n in (0, 1, 3))]
    assert cells[ONLINE].by_layer == (0.0,)
    stale, once, online = (cells[ChunkSetting(4, n)] for n in (0, 1, 3))
    assert cells[ChunkSetting(8)].distance > stale.distance > 1e-3
    assert once.distance < stale.distance / 3
    assert online.distance < ROUNDING
    expected = pytest.approx(cells[ONLINE].bits_per_byte, abs=1e-5)
    assert online.bits_per_byte == expected
    assert stale.bits_per_byte != expected


@pytest.mark.slow
def test_figures_agree_with_a_direct_scan():
    """Both layers' figures from their own projections and `miras.scan` alone.

    A model of the first layer and a head of 1 gives what the online model's second layer reads.
    """
    words = ("vocab=16", "layers=2", "chunk=8", "conv=0", "activation=none", "tie=false")
    config = miras.override(miras.preset("deltanet"), *SMALL, *words, "exact=false")
    text = rows(24)
    _, params, cells = measured(config, (8,), (0, 1), text)

    first = params | {"head": {"kernel": jnp.eye(16)}}
    first["groups"] = jax.tree.map(lambda leaf: leaf[:1], params["groups"])
    graph, _ = structure(miras.override(config, "layers=1", "chunk=1"))
    second_input, _ = nnx.merge(graph, first)(text.batch["inputs"])
    x = params["embedding"][text.batch["inputs"]]
    x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)  # the norm's scale starts at 1

    for layer, read in enumerate((x, second_input)):
        mixer = params["groups"]["blocks"]["M0"]["mixer"]
        memory = jax.tree.map(lambda leaf, n=layer: leaf[n], mixer)
        kernel = memory["qkv"]["linear"]["kernel"]
        q, k, v = jnp.moveaxis(jnp.einsum("btw,wshd->btshd", read, kernel), 2, 0)
        gates, W0 = memory["fast"]["gates"], memory["fast"]["initial"]
        logits = read @ gates["kernels"]["lr"]["kernel"] + gates["biases"]["lr"]
        (gate,) = config.rule.gates
        call = (l2_normalise(q), l2_normalise(k), v, {"lr": gate.upper * jax.nn.sigmoid(logits)})

        def outputs(chunk: int, refine: int = 0, W0=W0, call=call):
            y, _ = miras.scan(config.rule, W0, *call, chunk=chunk, refine=refine)
            return np.asarray(y, np.float64)

        online = outputs(1)
        for setting in (ChunkSetting(8), ChunkSetting(8, 1)):
            y = outputs(setting.chunk, setting.refine)
            expected = np.linalg.norm(y - online) / np.linalg.norm(online)
            assert expected > 1e-5
            assert cells[setting].by_layer[layer] == pytest.approx(expected, rel=1e-2)
    assert cells[ChunkSetting(8, exact=True)].distance < ROUNDING


@pytest.mark.slow
def test_any_pattern_of_blocks_is_measured_layer_by_layer():
    """The layers with a memory, in order; the one whose rule is never stale has distance 0."""
    mixer = '{"kind": "parallel", "of": ["memory", {"mixer": "memory", "rule": {}, "chunk": 4}]}'
    blocks = ("blocks.N=linear_attention", "N.chunk=2", "N.heads=2", f"M.mixer={mixer}")
    words = ("vocab=16", "layers=3", "pattern=S N M", "M.chunk=8", "M.exact=false")
    config = miras.override(miras.preset("deltanet"), *SMALL, *blocks, *words)
    plan, params, cells = measured(config, (1,), (0,), rows(16))
    assert plan.own == OwnSettings(
        (("N", ChunkSetting(2)), ("M", ChunkSetting(8)), ("M.of.1", ChunkSetting(4)))
    )
    assert (plan.own.chunk, plan.own.is_online) == (8, False)
    assert "M: chunk 8, refine 0; M.of.1: chunk 4" in str(plan.own)
    assert cells[ONLINE].by_layer == (0.0, 0.0)
    dot, delta = cells[plan.own].by_layer
    assert dot < ROUNDING
    assert delta > 1e-4

    inputs = layer_inputs(ONLINE.apply(config), params, rows(16).batch["inputs"])
    block = nnx.eval_shape(lambda: Block(config, "M", nnx.Rngs(0)))
    own = jax.tree.map(lambda leaf: leaf[0], params["groups"]["blocks"]["M2"])
    y, _, _ = nnx.merge(nnx.split(block, nnx.Param)[0], own).mixer(inputs["M2"][0])
    np.testing.assert_allclose(memory_outputs(config, params, inputs)[1], y, atol=1e-6)
    changed = ChunkSetting(4, 1).apply(config)
    assert {(m.chunk, m.refine) for m in memories(changed)} == {(4, 1)}
    assert changed.block("S") == config.block("S")


def test_chunks_that_do_not_fit_a_mixer_are_left_out():
    config = miras.override(miras.preset("titans_mac"), *SMALL, "segment=16", "window=16")
    plan = make_plan(config, (4, 6, 32), (0,))
    assert (plan.chunks, plan.chunks_left_out) == ((4,), (6, 32))
    assert "attention.segment=16 must be a multiple of model.chunk=6" in str(plan.reason_of_chunks)
    for other in (miras.override(miras.preset("yaad"), "pattern=S"), miras.preset("tnt_titans")):
        with pytest.raises(ConfigError, match="has no memory whose chunk is set by `chunk`"):
            make_plan(other, (4,), (0,))
    with pytest.raises(ConfigError, match=r"set model\.exact=true, or model\.chunk=1"):
        make_plan(miras.preset("log_linear_gated_deltanet"), (4, 16), (0,))


def test_a_rule_that_refines_nothing_is_told_once_and_measured_without():
    config = miras.override(miras.preset("moneta"), *SMALL)
    plan = make_plan(config, (16, 4), (0, 2, 1))
    assert plan.grid == (ChunkSetting(4), ChunkSetting(16))
    assert plan.left_out == (1, 2)
    assert "link_every='token'" in (plan.reason or "")
    assert plan.settings == (ONLINE, ChunkSetting(16), ChunkSetting(4))


def test_rates_by_position_are_refused():
    with pytest.raises(ConfigError, match=r"lr_by_position=false"):
        make_plan(miras.preset("ttt_mlp"), (1,), (0,))


@pytest.mark.parametrize("option", ["layer.value_residual=true", "embedding_norm=true"])
def test_what_layers_do_not_take_from_the_one_below_is_refused(option):
    config = miras.override(miras.preset("rwkv7"), option)
    with pytest.raises(ConfigError, match="embedding_norm=true give layers more than the tokens"):
        make_plan(config, (1,), (0,))


def test_text_is_of_long_documents_from_their_start(sea):
    data = DataConfig(source=str(sea), validation=0.3)
    text = held_out(data, BYTES, 100)
    assert text.batch["inputs"].shape == (text.rows, 100)
    assert text.rows > 1
    assert text.batch["target_bytes"].sum() == text.rows * 100
    assert (text.batch["inputs"][:, 0] == BYTES.bos_id).all()
    assert (text.batch["inputs"][:, 1:] == text.batch["targets"][:, :-1]).all()
    longest = held_out(data, BYTES, 1024, exactly=False)
    assert longest.rows == 1
    assert 100 < longest.length < 1024
    with pytest.raises(ConfigError, match=f"use --length {longest.length}"):
        held_out(data, BYTES, 1024)
    assert fitting((256, 4, 100), 100) == (4, 100)


@pytest.mark.slow
def test_the_command_writes_a_table_json_and_a_picture(sea, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["staleness", "deltanet", *FAST, "rule.read=snapshot", "exact=false"]
    argv += ["--data", str(sea), "--length", "40", "--chunks", "1,8", "--refine", "0,1,2"]
    assert main(argv) == 0
    told = capsys.readouterr().out
    for word in ("distance to online", "bits per byte", "time per token", "left out: refine 1, 2"):
        assert word in told
    assert told.count("use read='token'") == 1
    out = tmp_path / "runs" / "staleness-deltanet"
    found = json.loads((out / "staleness.json").read_text())
    assert found["own"] == {"chunk": 8, "refine": 0, "exact": False}
    assert [cell["chunk"] for cell in found["cells"]] == [1, 8]
    online, own = found["cells"]
    assert online["distance"] == 0 < own["distance"]
    assert own["distance_by_layer"] == [own["distance"]]
    assert own["time_over_own"] == 1
    assert found["left_out"]["refine"] == [1, 2]
    assert found["exact_is_possible"] is False
    assert "--chunks 1,8" in found["command"]
    assert (out / "staleness.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_run_is_measured_in_its_own_folder(sea, tmp_path, capsys):
    words = (*FAST, "sequence=32", "batch=2", f"source={sea}")
    config = miras.override(RunConfig(model=miras.preset("linear_attention")), *words)
    folder = RunFolder(tmp_path)
    folder.write_config(config)
    _, params = structure(config.model)
    state = create(config.model, make_optimizer(config.train, decay_mask(params)), seed=3)
    saved = Checkpoints(folder.checkpoints, keep=1)
    saved.save(7, state, make_loader(config.data, "train", align=8))
    saved.close()

    argv = ["staleness", str(tmp_path), "--chunks", "8", "--refine", "0"]
    assert main(argv) == 0
    told = capsys.readouterr().out
    assert "trained for 7 steps" in told
    assert "trained on rows of 32" in told
    assert "exact=True computes the online rule in closed form" in told
    found = json.loads((tmp_path / "staleness.json").read_text())
    assert all(cell["distance"] < ROUNDING for cell in found["cells"])  # dot: never stale
    batch = held_out(config.data, BYTES, 32).batch
    logits, _ = nnx.merge(structure(config.model)[0], state.params)(batch["inputs"])
    logs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logs, batch["targets"][..., None], axis=-1)
    bits = -float(jnp.sum(picked)) / np.log(2) / batch["target_bytes"].sum()
    for cell in found["cells"]:
        assert cell["bits_per_byte"] == pytest.approx(bits, abs=1e-5)

    assert main(["staleness", str(tmp_path), "width=32"]) == 2
    assert "changes the shapes of the parameters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["yad"], ["unknown preset 'yad'", "did you mean 'yaad'"]),
        (["width=16", "yaad"], ["'width=16'"]),
        (["runs/none"], ["runs/none", "config.json"]),
        ([], ["PRESET|RUN", "--help"]),
        (["yaad", "--chunks", "0,4"], ["chunk=0", "at least 1"]),
        (["yaad", "--chunks", "4,x"], ["--chunks", "'x'", "whole number"]),
        (["yaad", "--chunks", ""], ["--chunks", "whole number"]),
        (["yaad", "--chunks", "4,999"], ["4,999", "--length"]),
        (["yaad", "--refine", "0,-1"], ["refine=-1", "at least 0"]),
        (["yaad", "--length", "0"], ["--length 0", "at least 1"]),
        (["yaad", "--length", "1e3"], ["--length", "'1e3'", "1024"]),
        (["yaad", "--length", "123456"], ["123456", "longest"]),
        (["yaad", "--data", "/no/such/text"], ["/no/such/text", "does not exist"]),
        (["yaad", "vocab=100"], ["vocab=100", "vocab=257"]),
        (["yaad", "bias=l3"], ["unknown bias 'l3'"]),
        (["yaad", "titans_lmm"], ["'titans_lmm'", "key=value"]),
        (["ttt_mlp"], ["lr_by_position"]),
        (["yaad", "--out", "/dev/null/here"], ["/dev/null", "--out"]),
        (["yaad", "--out", "x" * 300], ["x" * 50, "--out"]),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(argv, words, sea, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = [] if "--data" in argv else ["--data", str(sea)]
    assert main(["staleness", *argv, *data]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    for word in words:
        assert word in told
    assert list(tmp_path.iterdir()) == []
