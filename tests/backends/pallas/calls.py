"""Calls of `scan` as each preset makes them, on random arrays."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import miras
from miras.backends.dispatch import BACKENDS, register
from miras.backends.pallas.backend import Pallas
from miras.backends.pallas.interpreter import Device, interpreted
from miras.testing import random_inputs
from miras.testing.expect import expect_close, expect_finite
from miras.testing.gradients import value_and_gradients as gradients_of
from miras.testing.inputs import scan_with_loss
from tests.rules import RULES

# Attention is no walk over chunks: jax has kernels of its own for it.
NAMES = [name for name in RULES if miras.preset(name).rule.kinds()["memory"] != "kv"]


def call(name: str, *, dtype: Any = np.float64, **sizes: int) -> tuple[dict[str, Any], Any]:
    """(static arguments of `scan_with_loss`, arrays) of a preset at these sizes."""
    config = miras.preset(name)
    terms = config.layer.terms(config.rule)
    inputs = random_inputs(config.rule, terms=terms, dtype=dtype, **sizes)
    arrays = {"inputs": inputs}
    if config.layer.keys in ("rwkv7", "comba"):
        arrays["k_write"] = np.random.default_rng(1).normal(size=inputs.k.shape).astype(dtype)
    return {"rule": config.rule, "exact": config.exact}, arrays


def erasing(memory: str, **sizes: int) -> tuple[dict[str, Any], Any]:
    """As `call`, of a rule of `dgd`, which no preset of `NAMES` has."""
    rule = miras.Rule(memory, "l2", "l2", {"kind": "dgd", "lr": 0.2, "max_lr": 0.9})
    return {"rule": rule, "exact": False}, {"inputs": random_inputs(rule, **sizes)}


def mimo(**sizes: Any) -> tuple[dict[str, Any], Any]:
    """As `call`, of Mamba-3's rule with two inputs and three outputs of a token."""
    rule = miras.preset("mamba3").rule
    inputs = random_inputs(rule, terms=2, reads=3, **sizes)
    return {"rule": rule, "exact": False}, {"inputs": inputs}


def value_and_gradients(static: dict[str, Any], arrays: Any, **options: Any) -> Any:
    """Everything that a call gives, and the gradients of a scalar of all of it by all arrays."""

    def run(arrays):
        y, state, loss = scan_with_loss(
            static["rule"],
            *arrays["inputs"],
            k_write=arrays.get("k_write"),
            exact=static["exact"],
            **options,
        )
        return {
            "y": y,
            "loss": loss,
            "memory": (state.A, state.S, state.V, state.R, state.L, state.carried),
        }

    found, gradients = jax.jit(functools.partial(gradients_of, run))(arrays)
    return {**found, "gradients": gradients}


@contextlib.contextmanager
def kernels(limits: Any) -> Iterator[str]:
    """The name of a backend of kernels that are planned by these limits, in jax's caches too."""
    if limits is None:
        yield "pallas"
        return
    name = f"pallas by {limits}"
    register(name, lambda: Pallas(limits))
    try:
        yield name
    finally:
        del BACKENDS[name]


def agree(
    device: Device, static: dict[str, Any], arrays: Any, limits: Any = None, **options: Any
) -> None:
    """A device's kernels, in jax's interpreter of them, give what `reference` gives."""
    want = value_and_gradients(static, arrays, backend="reference", **options)
    with interpreted(device), kernels(limits) as backend:
        got = value_and_gradients(static, arrays, backend=backend, **options)
    expect_finite(got, "pallas")
    expect_close(got, want, "pallas is not reference")


def gradient(static: dict[str, Any], **options: Any) -> Any:
    """The gradients of the sum of a call's outputs, as a function of its arrays."""

    def total(arrays):
        y, _ = miras.scan(
            static["rule"],
            *arrays["inputs"],
            k_write=arrays.get("k_write"),
            exact=static["exact"],
            **options,
        )
        return jnp.sum(y.astype(jnp.float32))

    return jax.grad(total)


def shapes(arrays: Any) -> Any:
    """Of a tree of arrays."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays)
