"""Rates, sizes and FLOPs of cells, in the tables and in the files."""

import csv
import functools
import io
import math

import jax
import pytest
from flax import nnx

import miras
from miras.analysis.ablate import make_grid, records, report
from miras.analysis.ablate.cell_costs import cell_costs
from miras.analysis.ablate.columns import bytes_text, number_text
from miras.analysis.ablate.results import summarise
from miras.cli.ablate import parse_points
from miras.models import LanguageModel
from miras.train import RunConfig
from tests.analysis.ablate.test_results import outcomes

_SMALL = ("width=16", "layers=1", "heads=2", "vocab=32", "sequence=32", "batch=2", "steps=10")


def config_of(preset, *words):
    return miras.override(RunConfig(model=miras.preset(preset)), *_SMALL, *words)


def test_sizes_are_those_of_the_arrays():
    config = config_of("gated_deltanet", "accumulate=3")
    found = cell_costs(config)
    model = LanguageModel(config.model, nnx.Rngs(0))
    params = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert found.parameters == sum(leaf.size for leaf in params)
    assert found.state_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(model.init_state(1)))
    assert (found.step_tokens, found.tokens, found.steps) == (192, 1920, 10)
    assert found.token_flops * found.tokens == pytest.approx(found.flops)


def test_the_state_of_attention_is_its_cache_of_a_row():
    """A token has keys and values of 16 channels in float32, a position and a flag."""
    short, long = (cell_costs(config_of("transformer", f"sequence={n}")) for n in (32, 64))
    assert long.state_bytes - short.state_bytes == 32 * (2 * 16 * 4 + 4 + 1)
    assert short.rates == ()


def test_the_rate_and_its_strength_are_those_of_the_rule():
    config = config_of("yaad", "algorithm.lr=0.02")
    (rate,) = cell_costs(config).rates
    rule = config.model.rule
    assert (rate.path, rate.lr) == ("rule", 0.02)
    assert rate.strength == pytest.approx(miras.strength(rule, 8).value)


@pytest.fixture(scope="module")
def grid():
    base = RunConfig(model=miras.preset("yaad"))
    points = parse_points([*_SMALL, "bias=huber,l2"])
    build = functools.partial(miras.override, base)
    return make_grid(points, build, seeds=2, title="yaad", check=lambda config: None)


def test_tables_have_rates_and_costs(grid):
    costs = [cell_costs(cell.config) for cell in grid.cells]
    results = summarise(grid, outcomes(grid, [[2.0, 2.1], [2.2, 2.4]]), costs)
    told = report.markdown(results)
    head = "| rank | bias | inner rate | strength | state | parameters | FLOPs/token | tokens/s |"
    assert head in told
    first = costs[0]
    row = f"| 1 | huber | 0.01 | {first.rates[0].strength:.3f} | {bytes_text(first.state_bytes)} |"
    assert row in told
    table = list(csv.DictReader(io.StringIO(records.table_csv(results))))
    assert float(table[0]["inner_rate"]) == 0.01
    assert float(table[0]["write_strength"]) == first.rates[0].strength  # all digits
    assert float(table[0]["flops_per_token"]) == first.token_flops
    assert int(table[0]["state_bytes"]) == first.state_bytes
    assert int(table[0]["tokens"]) == 640


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1 k"),
        (12_345, "12.3 k"),
        (8.65e6, "8.65 M"),
        (2e20, "200 E"),
    ],
)
def test_numbers_in_three_digits(value, text):
    assert number_text(value) == text


def test_bytes_in_three_digits():
    assert [bytes_text(n) for n in (12, 1000, 1536, 5 * 2**30)] == [
        "12 B", "0.977 KiB", "1.5 KiB", "5 GiB",
    ]  # fmt: skip
    assert not math.isnan(float(bytes_text(2**60).split()[0]))
