"""Models without a published layout: what is written, and what is refused."""

import ast
import json

import jax
import numpy as np
import pytest
from flax import nnx

import miras
from miras.config import override
from miras.errors import ConfigError
from miras.interop import recurrent, safetensors, save_pretrained
from miras.models import LanguageModel
from tests.interop.export_models import SMALL, computed


def test_the_families_are_computed():
    families = {
        "linear_attention retnet lightning dfw gla mamba2 hgrn2",
        "deltanet gated_deltanet kda rwkv7 deltaproduct comba",
        "titans_lmm moneta yaad memora",
    }
    assert set(computed()) == {name for names in families for name in names.split()}


def test_the_table_of_parts_is_read_from_the_torch_file():
    tree = ast.parse(recurrent.SOURCE.read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"MirasConfig", "MirasForCausalLM"} <= classes
    assert {"memory", "bias", "retention", "algorithm"} == recurrent.supported().keys()


def test_a_folder_has_the_weights_by_layer_and_the_torch_file(tmp_path):
    config = override(miras.preset("memora"), *SMALL)
    model = LanguageModel(config, nnx.Rngs(0))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert save_pretrained(config, params, tmp_path / "out") == "miras"
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    tensors = safetensors.read(tmp_path / "out" / safetensors.SINGLE)
    assert fields["auto_map"]["AutoModelForCausalLM"] == "modeling_miras.MirasForCausalLM"
    assert (tmp_path / "out" / recurrent.NAME).read_bytes() == recurrent.SOURCE.read_bytes()
    assert miras.from_dict(type(config), fields["miras"]) == config
    shapes = {f"model.{name}": tuple(shape) for name, shape in fields["shapes"].items()}
    assert shapes == {name: w.shape for name, w in tensors.items()}
    assert sum(w.size for w in tensors.values()) == sum(x.size for x in jax.tree.leaves(params))
    # The memory begins at the dual of its weights: c softmax(A) is W0 for A = log W0.
    raw = params["groups"]["blocks"]["M0"]["mixer"]["fast"]["initial"]["w1"][1]
    A = tensors["model.layers.1.mixer.fast.initial.w1"]
    np.testing.assert_allclose(32 * jax.nn.softmax(A, 1), 32 * jax.nn.softmax(raw, 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        ("mesa", "algorithm 'newton' is none of gd"),
        ("atlas", "memory 'features' is none of matrix, mlp"),
        ("mamba3", "layer.rope_angles='cumulative' turns by tokens"),
        ("ttt_mlp", "averaged steps count from a chunk's start"),
        ("rwkv7 layer.token_shift=true", "layer.token_shift=True is none of"),
        ("rwkv7 channel=mlp", "channel 'mlp' is none of"),
        ("rwkv7 norm_kind=layer", "norm_kind='layer' is not 'rms'"),
        ("rwkv7 embedding_norm=true", "embedding_norm=true has a norm"),
        ("samba", "mixer 'attention' is not a memory alone"),
        ("hope", "mixer 'self_modifying' is not a memory alone"),
    ],
)
def test_what_is_not_computed_is_named_with_the_reason(preset, words):
    name, *options = preset.split()
    config = override(miras.preset(name), *options)
    with pytest.raises(ConfigError, match="does not compute it") as error:
        recurrent.published(config, {})
    assert words in str(error.value)
