"""What kernels of either device have in common: names for profiles, and directions of imports."""

import ast
import pathlib

import jax
import numpy as np
import pytest

from miras.backends import pallas
from miras.backends.pallas.interpreter import interpreted
from miras.backends.pallas.trace.jaxprs import equations
from tests.backends.pallas.calls import call, gradient

FOLDER = pathlib.Path(pallas.__file__).parent


@pytest.mark.parametrize("device", ["tpu", "gpu"])
def test_a_kernels_equations_name_its_passes(device):
    """And, of the backward kernel, which equations are a derivative's."""
    static, arrays = call("linear_attention", T=64, dk=16, dtype=np.float32)
    with interpreted(device):
        jaxpr = jax.make_jaxpr(gradient(static, chunk=16, backend="pallas"))(arrays).jaxpr
    names = {str(eqn.source_info.name_stack) for eqn in equations(jaxpr)}
    found = {
        scope for name in names for scope in ("forward", "recompute", "backward") if scope in name
    }
    assert found == {"forward", "backward"} | ({"recompute"} if device == "tpu" else set())
    assert any("backward/" in name and "transpose" in name for name in names)


@pytest.mark.parametrize(
    ("folder", "others"), [("trace", ("tpu", "gpu")), ("tpu", ("gpu",)), ("gpu", ("tpu",))]
)
def test_folders_import_none_of(folder, others):
    """What traces knows no device, and no device another."""
    for path in (FOLDER / folder).glob("*.py"):
        imported = [
            n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)
        ]
        for other in others:
            assert not [name for name in imported if f"pallas.{other}" in (name or "")], path
