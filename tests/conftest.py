"""What every test shares: one CPU device, and double precision on request."""

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


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Drop what a module compiled, or some gigabytes gather in a process."""
    yield
    jax.clear_caches()
