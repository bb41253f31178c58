"""The commands: a checkpoint as a run, which generates, and the run as the checkpoint it was."""

import json

import numpy as np
import pytest

from miras.cli.main import main
from miras.interop import safetensors
from tests.interop.test_import import VECTORS


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run of a checkpoint whose vocabulary has all bytes."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tensors = dict(safetensors.read(VECTORS / "retnet" / safetensors.SINGLE))
    generator = np.random.default_rng(0)
    for name in ("model.embeddings.weight", "lm_head.weight"):
        tensors[name] = generator.normal(size=(257, 16)).astype(np.float32)
    half = len(tensors) // 2
    names = list(tensors)
    for n, part in enumerate((names[:half], names[half:])):
        safetensors.write(folder / f"{n}.safetensors", {name: tensors[name] for name in part})
    where = {name: f"{int(n >= half)}.safetensors" for n, name in enumerate(names)}
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": where}))
    config = json.loads((VECTORS / "retnet" / "config.json").read_text()) | {"vocab_size": 257}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"top_k": 7}))
    out = folder / "run"
    assert main(["import", str(folder), "--out", str(out), "--tokenizer", "byte"]) == 0
    return tensors, out


def test_a_run_is_written_and_exported_again(imported, tmp_path, capsys):
    tensors, out = imported
    assert main(["generate", str(out), "--prompt", "ab", "--length", "2"]) == 0
    assert main(["export", str(out), str(tmp_path / "exported")]) == 0
    assert "retnet: step 0" in capsys.readouterr().out
    back = safetensors.read(tmp_path / "exported" / safetensors.SINGLE)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)
    generation = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert generation == {"top_k": 7}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["import", "RETNET", "--out", "OUT"], ("no tokenizer.json", "--tokenizer")),
        (["import", "RETNET", "--out", "OUT", "--tokenizer", "byte"], ("257 ids", "29")),
        (["import", "RETNET", "--out", "RUN", "--tokenizer", "byte"], ("257 ids",)),
        (["import", "OUT", "--out", "OUT"], ("config.json cannot be read",)),
        (
            ["export", "RUN", "OUT", "--layout", "gla"],
            ("model_type='gla'", "rule.retention.decay: 0.96875 -> 0.99"),
        ),
        (["export", "RUN", "OUT", "--layout", "llama"], ("model_type='llama'",)),
    ],
)
def test_errors(argv, words, imported, tmp_path, refused):
    _, run = imported
    paths = {"RETNET": VECTORS / "retnet", "OUT": tmp_path / "out", "RUN": run}
    text = refused(*(paths.get(word, word) for word in argv))
    assert all(word in text for word in words), text
