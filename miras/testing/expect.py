"""How checks say what is broken."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.config import Config


def expect(condition: object, message: str) -> None:
    """Raise `AssertionError(message)` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def expect_close(got: Any, want: Any, message: str, tolerance: float = 1e-9) -> None:
    """Every leaf of two trees agrees, relative to the largest entry or to 1."""
    expect(
        jax.tree.structure(got) == jax.tree.structure(want),
        f"{message}: {jax.tree.structure(got)} against {jax.tree.structure(want)}.",
    )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        where = f"{message}{' at ' + jax.tree_util.keystr(path) if path else ''}"
        expect(a.shape == b.shape, f"{where}: shapes {a.shape} and {b.shape}.")
        error = np.max(np.abs(a - b), initial=0.0)
        scale = max(1.0, np.max(np.abs(b), initial=0.0))
        expect(error <= tolerance * scale, f"{where}: they differ by {error:.2g}.\n{a}\n{b}")


def expect_finite(tree: Any, message: str) -> None:
    """No leaf holds NaN or infinity."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        finite = bool(jnp.all(jnp.isfinite(jnp.asarray(leaf))))
        where = jax.tree_util.keystr(path)
        expect(finite, f"{message} holds NaN or infinity{' at ' + where if where else ''}:\n{leaf}")


def name_of(member: Config) -> str:
    """The member as errors call it, with the fields that are not defaults."""
    return repr(member)


@contextlib.contextmanager
def double_precision_op_by_op() -> Iterator[None]:
    """float64, and nothing compiled but single operations: tiny shapes compile longer than run."""
    with jax.enable_x64(True), jax.disable_jit():
        yield
