"""The TPU's compiler, which `make test` installs beside the environment."""

import os
import platform
import sys
from pathlib import Path

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
