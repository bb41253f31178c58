"""Published checkpoints give the logits of the torch model, whole and with a cache.

`generate_vectors.py` wrote the checkpoints and the logits of `vectors/`.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
from flax import nnx

from miras.errors import ConfigError
from miras.interop import load_pretrained, model_of, safetensors
from tests.tolerances import tolerance

VECTORS = pathlib.Path(__file__).parent / "vectors"
NAMES = sorted(path.name for path in VECTORS.iterdir())
# One of each recurrence and kind of state; the others in `make exhaustive`.
CACHED = ("gated_deltanet_hybrid", "gla_conv", "qwen3_5", "retnet")
VARIANTS = ("delta_net_hybrid", "delta_net_gated", "gated_deltanet_plain", "gla_conv")
call = nnx.jit(lambda model, tokens, state: model(tokens, state=state))


def kept_logits(folder):
    """The arrays that torch gave, and the difference from its logits that rounding allows."""
    found = np.load(folder / "logits.npz")
    scale = np.abs(found["logits"]).max()
    # Logits sum 16 channels, each after the rounded operations of two layers over 12 tokens, whose
    # gains of norms and decays are below 8 in all.
    return found, scale * tolerance(np.float32, 16, 32)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.exhaustive if n in VARIANTS else []) for n in NAMES],
)
def test_logits_and_tensors(name):
    read = load_pretrained(VECTORS / name)
    found, allowed = kept_logits(VECTORS / name)
    logits, _ = call(model_of(read), found["tokens"], None)
    np.testing.assert_array_less(np.abs(logits - found["logits"]), allowed)
    assert read.layout.mismatch(read.config) == []
    published = read.layout.select(read.config, safetensors.read_folder(VECTORS / name))
    back = read.layout.tensors(read.config, read.params)
    assert back.keys() == published.keys()
    for tensor, value in published.items():
        rounding = 0 if not tensor.endswith(read.layout.rounded) else 8 * tolerance(np.float32)
        close = {"rtol": rounding, "atol": rounding, "err_msg": tensor}
        np.testing.assert_allclose(back[tensor], value, **close)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in CACHED else pytest.mark.exhaustive) for n in NAMES],
)
def test_logits_with_a_cache(name):
    model = model_of(load_pretrained(VECTORS / name))
    found, allowed = kept_logits(VECTORS / name)
    tokens, split = found["tokens"], int(found["split"])
    logits, state = call(model, tokens[:, :split], None)
    pieces = [logits]
    for t in range(split, tokens.shape[1]):
        logits, state = call(model, tokens[:, t : t + 1], state)
        pieces.append(logits)
    np.testing.assert_array_less(np.abs(np.concatenate(pieces, 1) - found["cached"]), allowed)


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a checkpoint, and a function that changes its config."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(VECTORS / "gated_deltanet", folder)

    def change(**fields):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return folder

    return change


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "llama"}, ("model_type='llama'", "gated_deltanet")),
        (
            {"attn": {"layers": [1]}},
            ("attn={'layers': [1]}", "with num_heads and without qkv_bias"),
        ),
        ({"output_gate_activation": "sigmoid"}, ("='sigmoid'", "'swish' or 'silu'")),
        ({"intermediate_size": 23}, ("intermediate_size=23", "a multiple of 8")),
        ({"head_dim": 8}, ("shape", "config.json")),
        ({"num_hidden_layers": 3}, ("no tensor 'model.layers.2.",)),
        ({"num_hidden_layers": 1}, ("tensors that its model_type does not have",)),
    ],
)
def test_what_is_not_represented_is_named(checkpoint, fields, words):
    folder = checkpoint(**fields)
    with pytest.raises(ConfigError) as error:
        load_pretrained(folder)
    assert all(word in str(error.value) for word in words), error.value
