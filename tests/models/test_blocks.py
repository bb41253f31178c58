"""Models of blocks with different mixers and rules: configs, overrides, states, health."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.config import config_hash, from_dict, to_dict
from miras.mixers import AttentionMixer, MACMixer, MemoryMixer
from miras.models import LanguageModel, LanguageModelConfig, prefill
from miras.models.block_config import BlockConfig

SMALL = ("width=16", "heads=2", "vocab=11", "chunk=4", "layers=3")
YAAD = miras.preset("yaad")
HYBRID = ("layers=4", "blocks.N=gated_deltanet", "blocks.S.window=128", "pattern=M N M S")


def test_a_block_takes_a_presets_name_and_has_options_of_its_own():
    config = miras.override(YAAD, *HYBRID, "N.bias=dot", "N.exact=false", "N.chunk=8", "M.chunk=4")
    assert config.block("M").rule == config.rule
    assert (config.chunk, config.block("N").chunk) == (4, 8)
    assert config.block("N").rule.kinds()["bias"] == "dot"
    assert config.block("N").layer == miras.preset("gated_deltanet").layer
    assert config.block("S").mixer == AttentionMixer(window=128)
    assert config.align == 8
    assert config.memory_layers == (0, 1, 2)


def test_configs_with_blocks_are_saved_hashed_and_loaded():
    config = miras.override(YAAD, *HYBRID)
    assert from_dict(LanguageModelConfig, json.loads(json.dumps(to_dict(config)))) == config
    hashes = [config_hash(c) for c in (YAAD, config, miras.override(config, "N.refine=0"))]
    assert hashes[1] == hashes[2] != hashes[0]
    assert config_hash(YAAD) == "cb1b72c8c38b"  # as before there were blocks
    assert hash(config) == hash(miras.override(YAAD, *HYBRID))


def test_block_m_is_the_models_own_fields():
    same = miras.override(YAAD, "blocks.M.mixer=mag", "M.bias=l2")
    assert same == miras.override(YAAD, "architecture=mag", "bias=l2")
    assert miras.override(YAAD, "M.mixer=memory") == YAAD
    given = BlockConfig(mixer=MACMixer(), rule=YAAD.rule)
    merged = LanguageModelConfig(blocks={"M": given})
    assert (merged.architecture, merged.rule, dict(merged.blocks)) == ("mac", YAAD.rule, {})
    assert miras.override(YAAD, "M=gated_deltanet").rule == miras.preset("gated_deltanet").rule


def test_a_name_without_a_letter_goes_to_the_only_block_that_has_it():
    config = miras.override(YAAD, "blocks.N=gated_deltanet", "pattern=NS", "bias=dot", "chunk=8")
    assert (config.block("N").chunk, config.block("N").rule.kinds()["bias"]) == (8, "dot")


def test_a_changed_mixer_keeps_the_blocks_rule():
    config = miras.override(YAAD, "N=gated_deltanet", "N.mixer=mal", "pattern=MN")
    assert config.block("N").rule == miras.preset("gated_deltanet").rule
    config = miras.override(YAAD, "S.mixer=memory", "S.rule.memory=mlp", "pattern=MS")
    assert config.block("S").mixer == MemoryMixer()


def test_heads_of_a_preset_that_do_not_fit_the_width_are_the_models():
    config = miras.override(YAAD, "width=12", "heads=3", "N=atlas", "pattern=MN")
    assert config.block("N").heads is None
    named = LanguageModelConfig(width=12, heads=3, pattern="MN", blocks={"N": "atlas"})
    assert named.block("N").heads is None


ERRORS = {
    ("pattern=MN",): "N needs a block, as in blocks.N=yaad",
    ("N.bias=l2",): "there is no block N: give it first, as in blocks.N=yaad",
    ("N=atlas",): "model.blocks.N is not in model.pattern='M': add it to the pattern",
    ("blocks.n=atlas", "pattern=Mn"): "a block's name is one letter from A to Z",
    ("N=atlass", "pattern=MN"): "unknown block 'atlass': did you mean 'atlas'",
    ("N=yaad_h", "pattern=MN"): "preset 'yaad_h' has several blocks, M S",
    ("N=gated_deltanet", "pattern=MN", "bias=l2"): "write one of rule.bias, blocks.N.rule.bias",
    ("N=gated_deltanet", "pattern=MN", "chunk=8"): "'chunk' is ambiguous",
    ("S.bias=l2", "pattern=MS"): "unknown key 'bias': the legal ones are",
    ("N=yaad", "pattern=MN", "N.heads=3"): "must be a multiple of model.blocks.N.heads=3",
    ("N=transformer", "N.mixer=mag", "pattern=MN"): "model.blocks.N.mixer='mag' combines",
    ("N=yaad", "N.mixer=mac", "N.segment=24", "pattern=MN"): "is larger than attention.segment=24",
    ("architecture=magg",): "unknown mixer 'magg': did you mean 'mag'",
    ("M.channel=swiglue",): "unknown channel mixer 'swiglue': did you mean 'swiglu'",
    ("blocks=3",): "blocks=3 is not a dict of BlockConfig",
}


@pytest.mark.parametrize(("words", "message"), ERRORS.items(), ids=[" ".join(w) for w in ERRORS])
def test_bad_blocks_raise_one_sentence(words, message):
    with pytest.raises(miras.ConfigError) as told:
        miras.override(YAAD, *words)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_blocks_of_several_rules_stream_and_are_measured():
    blocks = ("N=gated_deltanet", "N.heads=4", "S.window=5", "S.channel=none", "pattern=M N S")
    config = miras.override(YAAD, *SMALL, *blocks)
    model = LanguageModel(config, nnx.Rngs(0))
    assert "mlp" not in nnx.to_pure_dict(nnx.state(model, nnx.Param))["groups"]["blocks"]["S2"]
    x = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 12)))
    logits, _, health = model.observe(x)
    assert health.inner_loss.shape == (2,)
    assert np.isnan(health.gates["threshold"]).tolist() == [False, True]
    assert config.memory_gates[1] == {"lr", "decay"}
    _, state = prefill(model, x[:, :5])
    last, _ = prefill(model, x[:, 5:], state)
    np.testing.assert_allclose(last, logits[:, -1], atol=1e-5)
