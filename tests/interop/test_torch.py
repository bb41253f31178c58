"""New models of torch, with other random parameters, against their import.

Runs in CI's environment; `MIRAS_TORCH_PYTHON` names a Python with torch, transformers and
flash-linear-attention, which makes the models.
"""

import os
import subprocess

import pytest

from tests.interop import test_import

pytestmark = pytest.mark.interop
PYTHON = os.environ.get("MIRAS_TORCH_PYTHON")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The vectors of a seed other than that of those that are kept."""
    assert PYTHON, "set MIRAS_TORCH_PYTHON to a Python with torch, transformers and fla"
    out = tmp_path_factory.mktemp("vectors")
    script = test_import.VECTORS.parent / "generate_vectors.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [PYTHON, str(script), "--out", str(out), "--seed", "1"], check=True, env=environment
    )
    return out


@pytest.mark.parametrize("name", test_import.NAMES)
def test_other_parameters(name, vectors, monkeypatch):
    monkeypatch.setattr(test_import, "VECTORS", vectors)
    test_import.test_logits_and_tensors(name)
    test_import.test_logits_with_a_cache(name)
