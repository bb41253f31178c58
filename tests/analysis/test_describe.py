"""A model's costs, held against counts made another way."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from miras.analysis.costs import costs
from miras.analysis.describe import description, presets_markdown
from miras.analysis.equation import compose, setting_of
from miras.analysis.equation.page import aligned
from miras.config import override
from miras.engine.state import initial_state
from miras.models import LanguageModel
from miras.presets import PRESETS, preset


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("linear_attention", 64),
        ("titans_lmm", 16),
        ("memora", 16),
        ("yaad", 64),
        ("gated_deltanet", 64),
        ("transformer", 64),
        ("lact", 64),
        ("omeganet", 16),
    ],
)
def test_flops_are_what_xla_counts(name, chunk):
    """One layer and one chunk, since XLA counts the body of a loop once.

    Element-wise operations, which the formula leaves out, are most of what remains.
    """
    config = override(
        preset(name), "layers=1", "remat=false", "width=256", "heads=4", f"chunk={chunk}"
    )
    graphdef, params = nnx.split(nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0))))
    forward = jax.jit(lambda params, tokens: nnx.merge(graphdef, params)(tokens))
    tokens = jax.ShapeDtypeStruct((1, chunk), jnp.int32)
    counted = forward.lower(nnx.to_pure_dict(params), tokens).compile().cost_analysis()
    assert costs(config, context=chunk).flops == pytest.approx(counted["flops"] / chunk, rel=0.15)


def test_parameters_and_state_are_those_of_a_real_model():
    config = override(preset("titans_lmm"), "width=32", "layers=3", "heads=2")
    model = LanguageModel(config, nnx.Rngs(0))
    found = costs(config)
    assert found.parameters == sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    weights = config.rule.init(jax.random.key(0), 16, heads=2)
    memory = jax.tree.leaves(initial_state(config.rule, weights, 1, 16, 16))
    tail = 3 * (3 * 32 + 1)  # three inputs of q, k and v with their segment ids
    assert found.state_bytes == 3 * (sum(x.nbytes for x in memory) + 4 * tail)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.sample(0.4)
def test_every_preset_is_described_by_its_equations_parts_and_costs(name):
    config = preset(name)
    told = description(PRESETS[name], config)
    for kind in config.rule.kinds().values():
        assert f"{kind}(" in told
    for line in aligned(compose(setting_of(config, None, 0, False)).update):
        assert line in told
    assert PRESETS[name].paper in told
    assert f"{costs(config).parameters:,}" in told
    assert max(map(len, told.splitlines())) <= 100


def test_the_map_of_models_is_current():
    page = pathlib.Path(__file__).parents[2] / "docs" / "models.md"
    assert presets_markdown() in page.read_text(), "renew it: miras presets --markdown"


def test_a_changed_rule_does_not_pass_for_the_presets_equation():
    told = description(PRESETS["yaad"], override(preset("yaad"), "bias=l2", "chunk=8"))
    assert "its rule was changed here: bias, chunk" in " ".join(told.split())
    assert "sign(r_t)" not in told
    assert "sign(r_t)" in description(PRESETS["yaad"], preset("yaad"))
