"""New models of torch, with other random parameters, against their import.

Runs in CI's environment; `MIRAS_TORCH_PYTHON` names a Python with torch, transformers and
flash-linear-attention, which makes the models.
"""

import os
import subprocess

import numpy as np
import pytest

import miras
from tests.interop import export_models, test_import
from tests.tolerances import tolerance

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


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What torch found of the logits of exported models, by preset."""
    assert PYTHON, "set MIRAS_TORCH_PYTHON to a Python with torch, transformers and fla"
    folder = tmp_path_factory.mktemp("exported")
    export_models.main(folder)
    script = test_import.VECTORS.parent / "read_exported.py"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(script), str(folder)], check=True, env=environment, stdout=subprocess.PIPE
    )
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return {name: list(map(float, found)) for name, *found in rows}


@pytest.mark.parametrize("preset", export_models.computed())
def test_exported_models_give_the_same_logits(preset, exported):
    # Relative to the largest logit: rounded operations of two layers over 12 tokens, which links of
    # the dual state to the weights (a softmax times 32, a power) amplify by up to 16.
    factor = 32 * (16 if miras.preset(preset).rule.retention.linked else 1)
    assert max(exported[preset]) < tolerance(np.float32, 16, factor)
