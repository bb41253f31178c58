"""Attention of some tokens, as written and in kernels, as tests of it ask for it."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.attention import cache as attention
from miras.attention.dispatch import fused
from miras.backends.pallas.interpreter import interpreted

B, T, H, D = 2, 256, 2, 64
EDGE = np.where(np.arange(T) < 100, 1, 2)[None].repeat(B, 0)


def streams(dtype=np.float32):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.normal(size=(B, T, H, D)), dtype) for _ in range(3))


def rule(window, persistent=0):
    memory = miras.memory.KV(window=window, persistent=persistent)
    return miras.Rule(memory=memory, algorithm="nonparametric")


def run(window, backend, ids, q, k, v, front=None):
    kv, W0 = rule(window, 0 if front is None else front["k"].shape[1]), front or {}
    y, _ = miras.scan(kv, W0, q, k, v, segment_ids=ids, backend=backend)
    return y


def persistent(dtype=np.float32):
    """Keys and values of 5 tokens, as large as the others."""
    rng = np.random.default_rng(1)
    return {name: jnp.asarray(rng.normal(size=(H, 5, D)), dtype) for name in ("k", "v")}


@contextlib.contextmanager
def in_a_kernel(monkeypatch, device, place=attention):
    """Attend in a device's kernel, in the interpreter; gives what it is called with."""
    calls = []

    def recorded(q, k, v, front, **options):
        y = fused(q, k, v, front, **options, interpret=device == "tpu")
        calls.append((q, k, front, options["segment"], y))
        return y

    with contextlib.ExitStack() as stack:
        if device == "gpu":
            stack.enter_context(interpreted("gpu"))
        stack.enter_context(monkeypatch.context()).setattr(place, "fused", recorded)
        jax.clear_caches()  # of calls without it
        yield calls
        jax.clear_caches()


def both(monkeypatch, device, loss, *arguments):
    """Values and gradients of `loss(backend, ...)` as written, and by a kernel."""

    def found(backend):
        numbers = tuple(range(len(arguments)))
        gradient = jax.grad(functools.partial(loss, backend), argnums=numbers, has_aux=True)
        return gradient(*arguments)

    want = found("reference")
    with in_a_kernel(monkeypatch, device) as calls:
        got = found("auto")
    return want, got, calls


def by_name(tree):
    """The leaves of a tree as NumPy arrays, by their paths."""
    return {jax.tree_util.keystr(at): np.asarray(x) for at, x in jax.tree.leaves_with_path(tree)}


def neighbours(params):
    """Each parameter moved to the next float32 above or below it, at random."""
    rng = np.random.default_rng(0)

    def move(p):
        towards = rng.choice(np.asarray([-np.inf, np.inf], np.float32), p.shape)
        return jnp.asarray(np.nextafter(np.asarray(p), towards))

    return jax.tree.map(move, params)


def size_of_terms(gradients, name):
    """The largest entry of a gradient; of a gate's bias, that of its projection's kernel too.

    The bias is the kernel's row for an input of 1: both sum the same gradients by logits, over
    tokens. In the bias they may cancel. MAC normalises what its memory reads, so a factor common to
    all rates of linear attention changes almost nothing: terms of 200, by magnitude, sum to 0.2.
    """
    kernel = name.partition(".value")[0].replace("['biases']", "['kernels']")
    parts = [x for other, x in gradients.items() if other == name or other.startswith(kernel)]
    return max(np.max(np.abs(x)) for x in parts)


DEVICES = pytest.mark.parametrize("device", ["tpu", "gpu"])
