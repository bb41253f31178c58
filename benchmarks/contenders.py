"""Contenders: what the benchmarks run, each as a function that builds a call.

A contender is `build(shape, backward) -> call`: inputs, parameters and all that is compiled are
made by `build`; `call()` runs once and waits for the result. Frameworks are imported inside, so
that a process holds one of them only.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

WIDTH, HEADS = 256, 4  # four memories of 64, hidden layers of 256
Call = Callable[[], object]


class Shape(NamedTuple):
    """What a contender runs on: [batch, length] tokens, in chunks."""

    batch: int
    length: int
    chunk: int


def miras_layer(shape: Shape, backward: bool) -> Call:
    """Our memory layer with the preset titans_lmm, without the convolution that theirs lacks."""
    import jax.numpy as jnp
    from flax import nnx

    import miras
    from miras.layers import LayerConfig, MemoryConfig, MemoryLayer

    rule = miras.override(miras.preset("titans_lmm").rule, "memory.activation=gelu_exact")
    config = LayerConfig(conv=0, output_gate=False)
    memory = MemoryConfig(rule, chunk=shape.chunk)
    layer = MemoryLayer(memory, WIDTH, HEADS, config=config, rngs=nnx.Rngs(params=0))
    graph, parameters = nnx.split(layer, nnx.Param)
    x = jnp.asarray(_normal(shape.batch, shape.length, WIDTH))

    def forward(parameters, x):
        return nnx.merge(graph, parameters)(x)[0]

    return _compiled(forward, (parameters, x), backward)


def miras_scan(shape: Shape, backward: bool) -> Call:
    """`miras.scan` of the preset gated_deltanet in its closed form."""
    import jax.numpy as jnp

    import miras

    rule = miras.preset("gated_deltanet").rule
    q, k, v, rate, log_decay = (jnp.asarray(x) for x in _delta_inputs(shape))
    W0 = {"w1": jnp.zeros((HEADS, q.shape[-1], v.shape[-1]))}

    def forward(q, k, v, rate, log_decay):
        gates = {"lr": rate, "log_decay": log_decay}
        return miras.scan(rule, W0, q, k, v, gates, chunk=shape.chunk, exact=True)[0]

    return _compiled(forward, (q, k, v, rate, log_decay), backward)


def titans_pytorch(shape: Shape, backward: bool, *, stale: bool = False) -> Call:
    """titans-pytorch's NeuralMemory, its snapshot taken anew every chunk; `stale`: never."""
    import warnings

    import torch  # pyright: ignore[reportMissingImports]

    with warnings.catch_warnings(action="ignore"):  # of what it uses of torch
        from titans_pytorch import MemoryMLP, NeuralMemory  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    head = WIDTH // HEADS
    memory = NeuralMemory(
        dim=WIDTH,
        dim_head=head,
        heads=HEADS,
        chunk_size=shape.chunk,
        batch_size=None if stale else shape.chunk,
        model=MemoryMLP(head, depth=2, expansion_factor=4.0),
        default_step_transform_max_lr=0.25,
    )
    x = torch.from_numpy(_normal(shape.batch, shape.length, WIDTH)).requires_grad_(backward)
    return _eager(lambda: memory(x)[0], (x, *memory.parameters()), backward)


def qwen3_next(shape: Shape, backward: bool) -> Call:
    """The chunked gated delta rule of transformers' Qwen3-Next, in plain torch."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]
    from transformers.models.qwen3_next import (  # pyright: ignore[reportMissingImports]
        modeling_qwen3_next,
    )

    transformers.logging.set_verbosity_error()  # it says that GPUs have faster kernels
    rule = modeling_qwen3_next.torch_chunk_gated_delta_rule
    tensors = [torch.from_numpy(x).requires_grad_(backward) for x in _delta_inputs(shape)]
    q, k, v, rate, log_decay = tensors
    return _eager(
        lambda: rule(q, k, v, log_decay, rate, chunk_size=shape.chunk)[0], tensors, backward
    )


CONTENDERS = {
    "miras layer": miras_layer,
    "miras scan": miras_scan,
    "titans-pytorch": titans_pytorch,
    "titans-pytorch-stale": functools.partial(titans_pytorch, stale=True),
    "qwen3-next": qwen3_next,
}
# What a contender needs beyond miras: module, distribution.
NEEDS = {
    "titans-pytorch": ("titans_pytorch", "titans-pytorch"),
    "titans-pytorch-stale": ("titans_pytorch", "titans-pytorch"),
    "qwen3-next": ("transformers", "transformers"),
}


def _normal(*shape: int):
    import numpy as np

    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _delta_inputs(shape: Shape) -> tuple:
    """Queries and keys of unit norm, v, rates in (0, 1) and log decays, [B, T, H, ...]."""
    import numpy as np

    q, k, v = _normal(3, shape.batch, shape.length, HEADS, WIDTH // HEADS)
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    rate, log_decay = _normal(2, shape.batch, shape.length, HEADS)
    return q, k, v, 1 / (1 + np.exp(-rate)), -0.05 * np.abs(log_decay)


def _compiled(forward, inputs: tuple, backward: bool) -> Call:
    """One XLA program: the outputs, or the gradients of their mean square by all inputs."""
    import jax
    import jax.numpy as jnp

    function = forward
    if backward:

        def loss(*inputs):
            return jnp.mean(forward(*inputs) ** 2)

        function = jax.grad(loss, argnums=tuple(range(len(inputs))))
    program = jax.jit(function).lower(*inputs).compile()
    return lambda: jax.block_until_ready(program(*inputs))


def _eager(forward, inputs, backward: bool) -> Call:
    """The same in torch, without a graph where nothing is derived."""
    import torch  # pyright: ignore[reportMissingImports]

    def call():
        if not backward:
            with torch.no_grad():
                return forward()
        return torch.autograd.grad(forward().pow(2).mean(), inputs, allow_unused=True)

    return call
