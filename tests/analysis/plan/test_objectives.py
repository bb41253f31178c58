"""Plans of runs that train another model than a language model count the model that is built."""

import jax
import pytest
from flax import nnx

from miras.analysis.ablate.budget import amount, changes
from miras.analysis.ablate.cell_costs import cell_costs, known_costs
from miras.analysis.plan.flops import step_flops
from miras.analysis.plan.kinds import _Shapes
from miras.analysis.plan.memory import _in_backward, _in_loss, step_memory
from miras.analysis.utilization import model_flops, utilization
from miras.config import override
from miras.data.layout import row_layout
from miras.errors import ConfigError
from miras.models.backbone import Backbone
from miras.models.objective import Objective
from miras.tasks.forecasting.forecast import Forecast
from miras.tasks.forecasting.objective import Forecasting
from miras.train.objective_of import objective_of
from miras.train.state import structure
from miras.train.step import total_loss
from tests.analysis.plan.jobs import job

TEXT = ("sequence=32", "vocab=300")
CLASSES = ("task=classify", 'task.classes=["a","b","c"]', "sequence=32", "vocab=300")
SERIES = ("task=forecast", "task.lookback=96", "task.horizon=80", "vocab=1")
MORE = (*SERIES, "task.affine=true", "task.series=7", "task.skip=linear")
KINDS = [TEXT, (*TEXT, "tie=false"), (*TEXT, "task=mqar"), CLASSES, SERIES, MORE]
IDS = ["text", "untied", "answers", "classes", "series", "series with skip"]
of_each = pytest.mark.parametrize("words", KINDS, ids=IDS)


def planned(words, *more, preset="transformer++"):
    sizes = ("layers=1", "width=64", "heads=2", "data.batch=2")
    return job(preset, *sizes, *words, *more)


def batch_of(config):
    """The shapes of a batch."""
    fields = row_layout(config.data).items()
    size = (config.data.batch,)
    return {name: jax.ShapeDtypeStruct(size + of.shape, of.dtype) for name, of in fields}


def counted(config):
    """XLA's count of the forward pass of a step."""
    objective = objective_of(config.data)
    graphdef, params = structure(config.model, objective)
    run = jax.jit(lambda params, x: total_loss(graphdef, params, x, objective=objective)[0])
    cost = run.lower(nnx.to_pure_dict(params), batch_of(config)).cost_analysis()
    assert cost is not None
    return cost["flops"]


@of_each
def test_the_parameters_are_those_of_the_model_that_is_built(words):
    found = planned(words)
    model = objective_of(found.config.data).build(found.config.model, nnx.Rngs(0))
    built = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert found.parameters == built
    assert cell_costs(found.config).parameters == built
    assert step_memory(found).parameters == 4 * built


@of_each
def test_xlas_count_outside_of_the_blocks(words, monkeypatch):
    """With blocks that do nothing only the ends are left; elementwise work is 1 % at this width."""

    def nothing(self, x, *_, **__):
        return x, None, None

    found = planned(words, "width=512")
    monkeypatch.setattr(Backbone, "apply_blocks", nothing)
    assert counted(found.config) == pytest.approx(step_flops(found).logits, rel=0.02)


@of_each
def test_xlas_count_of_a_step_without_loops(words):
    """One layer, one chunk of the loss and attention in one piece: each loop has one pass."""
    found = planned(words)
    flops = step_flops(found)
    attention = flops.attention  # XLA computes the masked half, too
    assert counted(found.config) == pytest.approx(flops.forward + attention, rel=0.1)
    assert cell_costs(found.config).step_flops == flops.model == 3 * flops.forward
    assert model_flops(found.config) == flops.model


def test_a_head_by_hand():
    patches = (96 + 8 - 16) // 8 + 1
    assert planned(SERIES).head[:3] == (patches * 64, 80, False)
    assert step_flops(planned(SERIES)).logits == 2 * 2 * (patches * 64 * 80 + patches * 16 * 64)
    assert step_flops(planned(MORE)).logits - step_flops(planned(SERIES)).logits == 2 * 2 * 96 * 80
    assert step_flops(planned(CLASSES)).logits == 2 * 2 * (64 * 3 + 32 * 64)
    assert step_flops(planned(TEXT)).logits == 2 * 2 * 32 * 300 * 64


def test_the_loss_holds_what_the_head_returns():
    """And the gradient of its matrix, in float32; a vocabulary is no part of it."""
    assert _in_loss(planned(SERIES)).loss == 4 * (2 * 80 + 12 * 64 * 80)
    assert _in_loss(planned(CLASSES)).loss == 4 * (2 * 3 + 64 * 3)
    assert _in_loss(planned(TEXT)).loss == 4 * (2 * 32 * 300 + 64 * 300)
    small, large = (step_memory(planned(CLASSES, f"vocab={n}")) for n in (300, 30_000))
    more = 29_700 * 64 * 4
    assert large.parameters - small.parameters == more
    # AdamW's two moments and a gradient, of the embedding; logits of a vocabulary do not exist.
    assert large.peak - small.peak == pytest.approx(4 * more, rel=0.3)


def test_attention_with_a_mask_has_all_scores_at_once():
    """In float32, [rows, heads, tokens, tokens]; memories have none."""
    for preset, scores in (("transformer++", 2 * 2 * 32**2 * 4), ("yaad", 0)):
        classes, text = (planned(words, "chunk=16", preset=preset) for words in (CLASSES, TEXT))
        more = _in_backward(classes).activations - _in_backward(text).activations
        assert more == scores


# Peaks that `plan.compiler.compile_step` gave on v5e-4 with jax 0.10.2 and libtpu 0.0.42.1.
COMPILED = [
    (("layers=2", *CLASSES, "vocab=30000", "sequence=2048", "data.batch=64"), 3_691_688_960),
    (("layers=1", *CLASSES, "vocab=30000", "sequence=1024", "data.batch=128"), 1_985_296_896),
    (
        ("layers=2", *SERIES, "task.lookback=2048", "task.horizon=720", "data.batch=512"),
        1_299_094_016,
    ),
]


@pytest.mark.parametrize(("words", "peak"), COMPILED, ids=["classes", "short rows", "series"])
def test_a_compiled_peak(words, peak):
    sizes = ("width=512", "heads=8", "chunk=64", "dtype=bfloat16", "mesh.fsdp=4")
    found = job("transformer++", *words, *sizes, on="v5e-4")
    assert step_memory(found).peak == pytest.approx(peak, rel=0.15)


def test_buffers_of_a_head_are_told_apart_by_their_rows():
    shapes = _Shapes(planned(CLASSES, "data.batch=8"))
    assert shapes._of_head((8, 3))
    assert shapes._of_head((3, 8))
    assert not shapes._of_head((3, 64))
    assert not shapes._of_head((32, 300))
    assert _Shapes(planned(TEXT))._of_head((10, 300))


@pytest.mark.parametrize("words", [CLASSES, SERIES], ids=["classes", "series"])
def test_a_budget_of_parameters_counts_the_model_that_is_trained(words):
    base, other = (
        planned(words, "width=32", f"memory={memory}", preset="yaad").config
        for memory in ("mlp", "matrix")
    )
    made = override(other, *changes(other, base, "params"))
    assert made != other
    assert amount(made, "params") == pytest.approx(amount(base, "params"), rel=0.02)


def test_an_objective_that_does_not_say_is_trained_without_a_count(monkeypatch):
    class Silent(Forecasting):
        head = Objective.head

    config = planned(SERIES, "steps=77").config  # costs of a config are cached
    monkeypatch.setattr(Forecast, "objective", lambda self, data: Silent(self._ends(None)))
    monkeypatch.setattr("miras.analysis.utilization.chip_of", lambda kind: object())
    with pytest.raises(ConfigError, match="Silent does not say what its model computes outside"):
        model_flops(config)
    assert known_costs(config) is None
    assert utilization(config) is None
