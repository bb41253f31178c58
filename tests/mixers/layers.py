"""Layers of small mixers in float64, for tests, and calls of them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import miras
from miras.mixers import MixerConfig
from tests.models import oracle_titans as oracle

WIDTH, HEADS = 8, 2


def build(mixer, rule, layer=None, **options):
    """Graph and parameters of a mixer over a rule; the parameters off their start, in float64."""
    given = {"mixer": mixer, "rule": rule} | ({} if layer is None else {"layer": layer})
    module = MixerConfig(**given, **options).build(WIDTH, HEADS, nnx.Rngs(0))
    graph, params = nnx.split(module)
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))

    def move(p):
        return jnp.asarray(p, jnp.float64) + 0.2 * jax.random.normal(next(keys), p.shape)

    return graph, jax.tree.map(move, params)


@functools.partial(jax.jit, static_argnums=0)
def run(graph, params, x, state=None, ids=None, mask=None):
    """Outputs and state of a call."""
    return nnx.merge(graph, params)(x, state=state, segment_ids=ids, mask=mask)[:2]


def tokens(length, batch=1, seed=0):
    """Tokens [B, T, WIDTH]."""
    return np.random.default_rng(seed).normal(size=(batch, length, WIDTH))


def plain(params):
    """The parameters as nested dicts of NumPy arrays."""
    return jax.tree.map(np.asarray, nnx.to_pure_dict(params))


def close(got, want):
    """Equality up to the roundings of float64."""
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def check_pieces(graph, params, x, edges, want):
    """A call, and calls of the pieces between edges, give what is wanted of one sequence."""
    close(run(graph, params, x)[0][0], want)
    state, parts = None, []
    for first, last in itertools.pairwise(edges):
        y, state = run(graph, params, x[:, first:last], state)
        parts.append(y[0])
    close(np.concatenate(parts), want)


def check_gradients(graph, params, x):
    """The gradient of a call along a random direction is that of finite differences."""

    @jax.jit
    def loss(params):
        return (run(graph, params, x)[0] ** 2).sum()

    gradient = jax.grad(loss)(params)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    along = tree.unflatten([jax.random.normal(k, p.shape, p.dtype) for k, p in zip(keys, leaves)])
    step = lambda h: loss(jax.tree.map(lambda p, d: p + h * d, params, along))  # noqa: E731
    want = (8 * (step(1e-4) - step(-1e-4)) - (step(2e-4) - step(-2e-4))) / 12e-4
    got = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, along)))
    np.testing.assert_allclose(got, want, rtol=1e-7)


SQUASH = {"lr": oracle.sigmoid, "log_decay": lambda z: np.log(oracle.sigmoid(z))}
SQUASH["log_momentum"] = SQUASH["log_decay"]


def memory_inputs(p, x, max_lr):
    """Streams q, k, v [T, H, D] and gates [T, H] of a layer, from one sequence x [T, WIDTH]."""
    taps = p["qkv"]["conv"]["kernel"]
    z = np.tensordot(x, p["qkv"]["linear"]["kernel"], axes=1)
    mixed = np.stack(
        [sum(taps[j] * z[t - j] for j in range(min(len(taps), t + 1))) for t in range(len(z))]
    )
    q, k, v = oracle.l2_norm(mixed[:, 0]), oracle.l2_norm(mixed[:, 1]), mixed[:, 2]
    made = p["fast"]["gates"]
    gates = {
        name: SQUASH[name](x @ made["kernels"][name]["kernel"] + made["biases"][name])
        for name in made["kernels"]
    }
    gates["lr"] = max_lr * gates["lr"]
    return {"q": q, "k": k, "v": v}, gates


def output(p, y, x):
    """The layer's output [T, WIDTH] from the memory's reads [T, H, D]."""
    y = oracle.rms_norm(p["norm"], y, eps=1e-3).reshape(len(x), -1)
    return (y * oracle.silu(x @ p["gate"]["kernel"])) @ p["out"]["kernel"]


def rule(memory, bias="l2", algorithm="momentum", max_lr=0.25, **fields):
    """A rule of parts whose retention is a decay per head."""
    return miras.from_dict(
        miras.Rule,
        {
            "memory": memory,
            "bias": {"kind": bias},
            "retention": {"kind": "l2", "decay": 0.9},
            "algorithm": {"kind": algorithm, "lr": 0.1, "max_lr": max_lr},
            **fields,
        },
    )
