"""The slices of a plan, and what is published of their chips."""

import pytest

from miras.analysis.plan.chips import CHIPS
from miras.analysis.plan.slices import planned_slice
from miras.errors import ConfigError
from miras.parallel.slices import GENERATIONS
from tests.analysis.plan.jobs import CHIP


@pytest.mark.parametrize(
    ("name", "shape", "chips"),
    [
        ("v5e-256", (16, 16), 256),
        ("v5p-128", (4, 4, 4), 64),  # TensorCores
        ("v6e:8x8", (8, 8), 64),
        ("2xv5e-256", (16, 16), 512),
        ("h100-16", (16,), 16),
        ("cpu", (1,), 1),
        ("cpu-4", (4,), 4),
    ],
)
def test_names(name, shape, chips):
    found = planned_slice(name, {"cpu": CHIP})
    assert (found.shape, found.chips) == (shape, chips)


@pytest.mark.parametrize("name", ["v5e-255", "v9-8", "v5e:3x5", "cpu-0", "other-4"])
def test_what_does_not_exist_is_an_error(name):
    with pytest.raises(ConfigError):
        planned_slice(name, {"cpu": CHIP})


def test_every_kind_of_chip_has_figures():
    assert set(CHIPS) == set(GENERATIONS)
    assert all(chip.source and chip.name == name for name, chip in CHIPS.items())


def test_clocks_follow_from_the_published_peaks():
    """The clocks of v4 and v5e that Google's papers and talks name are 1.05 and 1.5 GHz."""
    clocks = {name: round(CHIPS[name].clock / 1e9, 2) for name in ("v4", "v5e", "v5p", "v6e")}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75}
    assert "1.50 GHz" in CHIPS["v5e"].assumption()
