"""New models of torch, with other random parameters, against their import.

Runs in CI's environment; `MIRAS_TORCH_PYTHON` names a Python with torch, transformers and
flash-linear-attention, which makes the models.
"""

import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

import miras
from miras.interop import load_pretrained, model_of, save_pretrained
from tests.interop import export_models, test_import
from tests.tolerances import tolerance

pytestmark = pytest.mark.interop
PYTHON = os.environ.get("MIRAS_TORCH_PYTHON")


def _python(script, *args):
    """What a script of this folder prints in the environment with torch, by the first word."""
    assert PYTHON, "set MIRAS_TORCH_PYTHON to a Python with torch, transformers and fla"
    path = test_import.VECTORS.parent / script
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [PYTHON, str(path), *map(str, args)], check=True, env=environment, stdout=subprocess.PIPE
    )
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return {name: list(map(float, found)) for name, *found in rows}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """The vectors of a seed other than that of those that are kept."""
    out = tmp_path_factory.mktemp("vectors")
    _python("generate_vectors.py", "--out", out, "--seed", 1)
    return out


def _effect_of_rounding(folder, tokens):
    """The largest change of a token's logits, [B, T, 1], when all parameters change by an ulp."""
    random = np.random.default_rng(0)
    up = lambda x: x * np.float32(1 + random.choice([-1, 1], x.shape) * 2.0**-24)  # noqa: E731
    read = load_pretrained(folder)
    exact, _ = test_import.call(model_of(read), tokens, None)
    changes = []
    for _ in range(4):
        changed = read._replace(params=jax.tree.map(up, read.params))
        logits, _ = test_import.call(model_of(changed), tokens, None)
        changes.append(np.abs(logits - exact).max(-1, keepdims=True))
    return np.maximum.reduce(changes)


@pytest.mark.parametrize("name", test_import.NAMES)
def test_other_parameters(name, vectors, monkeypatch):
    # A read near 0 is normalised, so that some random models have tokens at which one ulp of the
    # parameters changes the logits by 3e-4.
    found, allowed = test_import.kept_logits(vectors / name)
    wide = np.maximum(
        np.full(found["logits"].shape, allowed),
        _effect_of_rounding(vectors / name, found["tokens"]),
    )
    monkeypatch.setattr(test_import, "VECTORS", vectors)
    monkeypatch.setattr(test_import, "kept_logits", lambda folder: (found, wide))
    test_import.test_logits_and_tensors(name)
    test_import.test_logits_with_a_cache(name)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What torch finds of models that were imported and exported again, by name."""
    out = tmp_path_factory.mktemp("published")
    for name in test_import.NAMES:
        read = load_pretrained(test_import.VECTORS / name)
        found = save_pretrained(read.config, read.params, out / name)
        assert found == read.layout.model_type
        shutil.copy(test_import.VECTORS / name / "logits.npz", out / name)
    return _python("read_published.py", out)


@pytest.mark.parametrize("name", test_import.NAMES)
def test_published_layouts_load_with_the_same_logits(name, published):
    assert max(published[name]) < tolerance(np.float32, 16, 32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What torch finds of the logits of exported models, by preset."""
    folder = tmp_path_factory.mktemp("exported")
    export_models.main(folder)
    return _python("read_exported.py", folder)


@pytest.mark.parametrize("preset", export_models.computed())
def test_exported_models_give_the_same_logits(preset, exported):
    # Relative to the largest logit: rounded operations of two layers over 12 tokens, which links of
    # the dual state to the weights (a softmax times 32, a power) amplify by up to 16.
    factor = 32 * (16 if miras.preset(preset).rule.retention.linked else 1)
    assert max(exported[preset]) < tolerance(np.float32, 16, factor)
