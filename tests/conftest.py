"""What every test shares: one CPU device, and double precision on request."""

import itertools
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

# Compiling is most of the time of most tests; what is computed stays the same.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def float64():
    """Run a test in double precision."""
    with jax.enable_x64(True):
        yield


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def forget_programs():
    """Drop what was compiled, every 25 tests: Linux gives a process 65,530 pieces of memory.

    A program takes some dozens of them, and XLA crashes when there are none left.
    """
    yield
    if next(_tests) % 25 == 0:
        jax.clear_caches()
