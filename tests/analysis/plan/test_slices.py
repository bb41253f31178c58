"""Slices by Google's names and by topology, and what is published of their chips."""

import pytest

from miras.analysis.plan.chips import CHIPS
from miras.analysis.plan.slices import parse_slice
from miras.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "shape", "chips"),
    [
        ("v5e-256", (16, 16), 256),
        ("v5litepod-16", (4, 4), 16),
        ("v6e-64", (8, 8), 64),
        ("v5p-128", (4, 4, 4), 64),  # TensorCores
        ("v4-8", (2, 2, 1), 4),
        ("v5e:16x16", (16, 16), 256),
        ("2*v5e-256", (16, 16), 512),
        ("h200-8", (8,), 8),
        ("h100-16", (16,), 16),
    ],
)
def test_names(name, shape, chips):
    found = parse_slice(name)
    assert (found.shape, found.chips) == (shape, chips)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e-255", "v5e-128 or v5e-256"),
        ("v5p-100", "TensorCores, two a chip"),
        ("v5e:3x5", "v5e:4x4"),
        ("v9-8", "v5e"),
        ("v5e-", "is not a slice"),
        ("h100-12", "whole hosts of 8"),
        ("0*v5e-4", "at least 1"),
    ],
)
def test_what_does_not_exist_is_an_error_with_the_legal_names(name, told):
    with pytest.raises(ConfigError, match=told):
        parse_slice(name)


def test_clocks_follow_from_the_published_peaks():
    """The clocks of v4 and v5e that Google's papers and talks name are 1.05 and 1.5 GHz."""
    clocks = {name: round(chip.clock / 1e9, 2) for name, chip in CHIPS.items()}
    assert clocks == {"v4": 1.05, "v5e": 1.5, "v5p": 1.75, "v6e": 1.75, "h100": 0, "h200": 0}
    assert "1.50 GHz" in CHIPS["v5e"].assumption()
    assert all(chip.source for chip in CHIPS.values())
