"""The TPU's compiler, which `make test` installs beside the environment, and double precision."""

import os
import platform
import sys
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="session")
def libtpu():
    """Let jax find libtpu.so."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("libtpu is for Linux on x86_64")
    library = Path(sys.prefix) / "tpu" / "libtpu" / "libtpu.so"
    if not library.exists():
        pytest.fail(f"no {library}: `make test` installs it")
    os.environ["TPU_LIBRARY_PATH"] = str(library)


@pytest.fixture
def everywhere():
    """Double precision also in the threads in which an interpreter runs a kernel."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
