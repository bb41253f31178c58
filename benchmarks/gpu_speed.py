"""Tokens a second on a GPU: our kernels, our XLA path and the peers, forward and with backward.

Command:   pip install -e ".[cuda]" "titans-pytorch" "flash-linear-attention" torch, then
           python -m benchmarks.gpu_speed            (--models, --shapes short long, --repeats)
Cost:      some minutes on one GPU; needs one (compute capability 8.0 or later).
Shows:     tokens a second of each contender, and what share ours reaches of the floor. Kept in
           results/gpu_speed.md, with the device and the versions.

Shapes are [B, T, H, D] = [8, 4096, 16, 64] and [2, 32768, 16, 128], inputs in bfloat16, chunks of
64. "auto" is what users get: kernels where the plan takes them, else XLA; the table says which.
`transformer` and `swa` are their attention alone, of packed documents of 1024 tokens, a window of
64 in the latter. A contender that is not installed, or that runs out of memory, has no figure and
says why.

The floor is the larger of two times: that of reading q, k, v and gates and writing y once at the
device's memory bandwidth, and that of the memory's matrix products at its bfloat16 rate (both
measured here, by a copy and a product of large matrices). With backward it is three times that of
the products, and twice the traffic. Attention's products are with keys that are seen.

titans-pytorch's `NeuralMemory` projects to q, k and v itself: what it is given is [B, T, H D], and
its projections are in its time, as `titans_layer` has them for ours.
"""

import argparse
import functools
import importlib.metadata
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import miras
from miras.testing import random_inputs

RESULTS = pathlib.Path(__file__).parent / "results" / "gpu_speed.md"
MODELS = ("gated_deltanet", "titans_lmm", "moneta", "yaad", "memora", "transformer", "swa")
SHAPES = {"short": (8, 4096, 16, 64), "long": (2, 32768, 16, 128)}
CHUNK = 64
DOCUMENT = 1024  # tokens, in attention
Call = Callable[[], Any]


class Floor(NamedTuple):
    """What the device can do: bytes and multiply-adds (times two) a second."""

    bandwidth: float
    products: float


def seconds(call: Call, repeats: int) -> float:
    """The median of calls after two that warm up."""
    for _ in range(2):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def floor(repeats: int) -> Floor:
    """Measured on this device."""
    x = jnp.zeros((2**29,), jnp.bfloat16)
    copy = jax.jit(lambda x: x + 1)
    moved = seconds(lambda: copy(x).block_until_ready(), repeats)
    a = jnp.zeros((8192, 8192), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    worked = seconds(lambda: product(a).block_until_ready(), repeats)
    return Floor(2 * x.nbytes / moved, 2 * 8192**3 / worked)


def inputs_of(model: str, shape: tuple[int, ...]) -> Any:
    """Of a preset: q, k and v in bfloat16, weights and gates in float32."""
    B, T, H, D = shape
    inputs = random_inputs(miras.preset(model).rule, B=B, T=T, H=H, dk=D, dtype="float32")
    bf16 = {name: jnp.asarray(getattr(inputs, name), jnp.bfloat16) for name in "qkv"}
    return jax.tree.map(jnp.asarray, inputs._replace(**bf16))


def attends(model: str) -> bool:
    """Whether a preset's rule is attention."""
    return miras.preset(model).rule.memory.keeps_tokens


def documents(batch: int, length: int) -> jax.Array:
    """Ids of packed documents [B, T]."""
    return jnp.broadcast_to(jnp.arange(length) // DOCUMENT, (batch, length))


def forward_of(model: str, backend: Any) -> Callable[[Any], jax.Array]:
    """`miras.scan` of a preset; of documents where it is attention."""
    config = miras.preset(model)

    def forward(inputs: Any) -> jax.Array:
        ids = documents(*inputs.q.shape[:2]) if attends(model) else None
        options: Any = dict(chunk=CHUNK, exact=config.exact, backend=backend, segment_ids=ids)
        return miras.scan(config.rule, *inputs, **options)[0]

    return forward


def ours(model: str, shape: tuple[int, ...], backward: bool, backend: str) -> Call:
    """A compiled call of it."""
    inputs, forward = inputs_of(model, shape), forward_of(model, backend)

    def total(inputs: Any) -> jax.Array:
        return jnp.sum(forward(inputs).astype(jnp.float32))

    run = jax.jit(jax.grad(total) if backward else forward)
    return lambda: jax.block_until_ready(run(inputs))


def taken(model: str, shape: tuple[int, ...]) -> str:
    """What "auto" runs."""
    inputs = inputs_of(model, (1, CHUNK, 1, shape[-1]))
    text = jax.jit(forward_of(model, "auto")).lower(inputs).as_text()
    return "kernels" if "miras_forward" in text or "miras_attention" in text else "XLA"


def flash_linear_attention(model: str, shape: tuple[int, ...], backward: bool) -> Call:
    """Its chunked Gated DeltaNet."""
    if model != "gated_deltanet":
        raise LookupError("no such model")
    import torch  # pyright: ignore[reportMissingImports]
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule  # pyright: ignore

    B, T, H, D = shape
    make = functools.partial(torch.randn, device="cuda", dtype=torch.bfloat16)
    q, k, v = (make(B, T, H, D).requires_grad_(backward) for _ in range(3))
    k = torch.nn.functional.normalize(k, dim=-1)
    g = -torch.rand(B, T, H, device="cuda").requires_grad_(backward)
    beta = torch.rand(B, T, H, device="cuda").requires_grad_(backward)

    def call() -> None:
        y, _ = chunk_gated_delta_rule(q, k, v, g, beta)
        if backward:
            torch.autograd.grad(y.float().sum(), (q, v, g, beta))
        torch.cuda.synchronize()

    return call


def titans_pytorch(model: str, shape: tuple[int, ...], backward: bool) -> Call:
    """Its `NeuralMemory` with an MLP of depth 2 and expansion 4, momentum and forgetting."""
    if model != "titans_lmm":
        raise LookupError("no such model")
    import torch  # pyright: ignore[reportMissingImports]
    from titans_pytorch import MemoryMLP, NeuralMemory  # pyright: ignore

    B, T, H, D = shape
    memory = MemoryMLP(dim=D, depth=2, expansion_factor=4.0)
    layer = NeuralMemory(
        dim=H * D, heads=H, dim_head=D, model=memory, chunk_size=CHUNK, batch_size=CHUNK
    ).to("cuda", torch.bfloat16)
    x = torch.randn(B, T, H * D, device="cuda", dtype=torch.bfloat16).requires_grad_(backward)

    def call() -> None:
        with torch.set_grad_enabled(backward):
            y, _ = layer(x)
        if backward:
            torch.autograd.grad(y.float().sum(), x)
        torch.cuda.synchronize()

    return call


CONTENDERS: dict[str, Callable[[str, tuple[int, ...], bool], Call]] = {
    "auto": functools.partial(ours, backend="auto"),
    "xla": functools.partial(ours, backend="xla"),
    "titans-pytorch": titans_pytorch,
    "flash-linear-attention": flash_linear_attention,
}


def least(model: str, shape: tuple[int, ...], backward: bool, device: Floor) -> float:
    """Seconds that a call takes at least."""
    B, T, H, D = shape
    rule = miras.preset(model).rule
    W0 = jax.eval_shape(lambda: rule.init(jax.random.key(0), dk=D, dv=D, heads=1))
    size = sum(leaf.size for leaf in jax.tree.leaves(W0))
    traffic = B * T * H * (4 * D * 2 + 4 * len(rule.gates)) * (2 if backward else 1)
    # A read, and a gradient in a read, a product backwards and one that writes: 4 of 2 each. In
    # attention 2 with every key that is seen.
    products = 4 * D * seen(rule) if attends(model) else 8 * size
    work = B * T * H * products * (3 if backward else 1)
    return max(traffic / device.bandwidth, work / device.products)


def seen(rule: miras.Rule) -> float:
    """Keys of its document that a query sees on average."""
    assert isinstance(rule.memory, miras.memory.KV)
    window = rule.memory.window or DOCUMENT
    return sum(min(at + 1, window) for at in range(DOCUMENT)) / DOCUMENT


def cell(name: str, model: str, shape: tuple[int, ...], backward: bool, repeats: int):
    """Tokens a second, or why there are none."""
    try:
        call = CONTENDERS[name](model, shape, backward)
        return shape[0] * shape[1] / seconds(call, repeats)
    except LookupError:
        return "-"
    except ImportError as missing:
        return f"not installed ({missing.name})"
    except Exception as failed:
        if "RESOURCE_EXHAUSTED" in str(failed) or "out of memory" in str(failed):
            return "out of memory"
        raise


def versions() -> str:
    """Of all that is measured."""
    names = ("jax", "jaxlib", "torch", "titans-pytorch", "flash-linear-attention")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if jax.default_backend() != "gpu":
        sys.exit(f"this needs a GPU, and jax computes on {jax.default_backend()} here")
    device = floor(options.repeats)
    lines = [
        f"Made by `{' '.join(['python -m benchmarks.gpu_speed', *sys.argv[1:]])}` on one "
        f"{jax.devices()[0].device_kind}, {versions()}.",
        f"Bandwidth {device.bandwidth / 1e12:.2f} TB/s, products {device.products / 1e12:.0f} "
        "TFLOP/s. Tokens a second; share is auto's of the floor.",
        "",
        f"| model | [B, T, H, D] | pass | {' | '.join(CONTENDERS)} | share | auto runs |",
        "|" + "---|" * (len(CONTENDERS) + 5),
    ]
    print("\n".join(lines))
    for model in options.models:
        for shape in (SHAPES[name] for name in options.shapes):
            for backward in (False, True):
                found: list[Any] = [
                    cell(name, model, shape, backward, options.repeats) for name in CONTENDERS
                ]
                best = shape[0] * shape[1] / least(model, shape, backward, device)
                share = f"{found[0] / best:.1%}" if isinstance(found[0], float) else "-"
                shown = [f"{x:,.0f}" if isinstance(x, float) else x for x in found]
                way = "forward + backward" if backward else "forward"
                lines.append(
                    f"| {model} | {list(shape)} | {way} | {' | '.join(map(str, shown))} | {share} "
                    f"| {taken(model, shape)} |"
                )
                print(lines[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
