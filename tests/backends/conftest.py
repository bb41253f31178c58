"""Double precision for kernels in an interpreter."""

import jax
import pytest


@pytest.fixture
def everywhere():
    """Double precision also in the threads in which an interpreter runs a kernel."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
