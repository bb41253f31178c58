"""What the GPU's compiler makes of every preset's kernels and attention's, without a GPU.

Command:   python -m benchmarks.gpu_static [--widths 16 32 64 128] [--presets ...]
Needs:     pip install --no-deps jax-cuda13-plugin==V jax-cuda13-pjrt==V, V jaxlib's version (XLA's
           compiler, 130 MB; no CUDA, no driver), and `ptxas`: of CUDA 12.9 or later on the path, or
           that of the triton wheel (pip install --no-deps triton).
Cost:      about 20 minutes on 2 cores.
Shows:     registers, spilled bytes and shared memory a thread or block, forward and backward, for
           an H200, of what `backend="auto"` runs as kernels; and what it leaves to XLA. The same of
           attention of packed documents. No row may spill more than 256 bytes a thread. Kept in
           results/gpu_static.md.

XLA compiles for a GPU that is described, not there; its own Triton does what it does on one. What
it hands to the assembler is assembled once more here, for a report of registers.
"""

import argparse
import functools
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

import miras
from miras.config import ConfigError
from miras.presets import PRESETS
from miras.testing import random_inputs

RESULTS = pathlib.Path(__file__).parent / "results" / "gpu_static.md"
MOST = 256  # bytes that a thread may spill
BATCH, TILES, HEADS = 1, 4, 2
CHUNK = 32  # of which a tile is a half
ATTENTION = [(dtype, width) for dtype in ("bfloat16", "float32") for width in (64, 128, 256)]
TOKENS = 1024  # of attention: some blocks

H200 = """
gpu_device_info {
  name: "NVIDIA H200 141GB HBM3e" device_vendor: "NVIDIA Corporation"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  l2_cache_size: 52428800 memory_bandwidth: 4800000000000 device_memory_size: 151397597184
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  device_address_bits: 64 driver_version: "13.0.0" runtime_version: "12.9.0"
  compile_time_toolkit_version: "12.9.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200 141GB HBM3e"
"""


class Figures(NamedTuple):
    """Of one kernel: registers and spilled bytes of a thread, shared memory of a block."""

    registers: int
    spilled: int
    shared: int


def ptxas() -> str:
    """The assembler: the newest of the triton wheel, else the one on the path."""
    found = importlib.util.find_spec("triton")
    if found is not None and found.origin is not None:
        tools = pathlib.Path(found.origin).parent / "backends" / "nvidia" / "bin"
        for tool in ("ptxas-blackwell", "ptxas"):
            if (tools / tool).exists():
                return str(tools / tool)
    on_path = shutil.which("ptxas")
    if on_path is None:
        sys.exit("no ptxas: pip install --no-deps triton, or put CUDA's on the path")
    return on_path


def compile_for(mesh: Mesh, name: str, width: int) -> None:
    """Compile a preset's scan and its gradients; XLA writes down what it does."""
    config = miras.preset(name)
    rule, terms = config.rule, config.layer.terms(config.rule)
    sizes: Any = {"B": BATCH, "T": TILES * CHUNK // 2, "H": HEADS, "dk": width}
    inputs = random_inputs(rule, terms=terms, dtype=np.float32, **sizes)
    has_keys = config.layer.keys in ("rwkv7", "comba")

    def total(inputs: Any, k_write: Any) -> jax.Array:
        y, _ = miras.scan(
            rule, *inputs, k_write=k_write, exact=config.exact, chunk=CHUNK, backend="pallas"
        )
        return jnp.sum(y)

    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs)
    _compile(jax.grad(total), mesh, shapes, shapes.k if has_keys else None)


def compile_attention_for(mesh: Mesh, dtype: str, width: int) -> None:
    """Likewise attention of packed documents."""
    rule = miras.preset("transformer").rule

    def total(q: Any, k: Any, v: Any, ids: Any) -> jax.Array:
        y, _ = miras.scan(rule, {}, q, k, v, segment_ids=ids)
        return jnp.sum(y.astype(jnp.float32))

    x = jax.ShapeDtypeStruct((BATCH, TOKENS, HEADS, width), dtype)
    ids = jax.ShapeDtypeStruct(x.shape[:2], jnp.int32)
    _compile(jax.grad(total, argnums=(0, 1, 2)), mesh, x, x, x, ids)


def _compile(gradient: Callable[..., Any], mesh: Mesh, *shapes: Any) -> None:
    with jax.set_mesh(mesh):
        jax.jit(gradient).trace(*shapes).lower(lowering_platforms=("cuda",)).compile()


def figures(directory: pathlib.Path, kernel: str) -> Figures:
    """Of a kernel that XLA has written down."""
    texts = {path: path.read_text() for path in directory.glob("*jit_total*.ptx")}
    (source,) = (path for path, text in texts.items() if f".entry {kernel}" in text)
    command = [ptxas(), "-v", "--gpu-name=sm_90a", str(source), "-o", "/dev/null"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    (thunks,) = directory.glob("*jit_total*thunk_sequence.txt")
    shared = re.search(rf"{kernel} grid.*shared_memory: (\d+)", thunks.read_text())
    spilled = re.search(r"(\d+) bytes spill stores", report)
    registers = re.search(r"Used (\d+) registers", report)
    found: list[Any] = [
        None if match is None else int(match[1]) for match in (registers, spilled, shared)
    ]
    assert None not in found, report
    return Figures(*found)


def row(
    directory: pathlib.Path,
    compiled: Callable[[str, int], None],
    kernels: str,
    name: str,
    width: int,
) -> str:
    """A line of a table."""
    for old in directory.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    try:
        compiled(name, width)
    except ConfigError as refused:
        reason = str(refused).partition(": ")[2].partition(";")[0]
        return f"| {name} | {width} | XLA: {reason} | | |"
    found = [figures(directory, f"{kernels}_{way}") for way in ("forward", "backward")]
    columns = zip(*found)
    return f"| {name} | {width} | " + " | ".join(f"{f}, {b}" for f, b in columns) + " |"


def _column(line: str, nth: int) -> str:
    cells = line.split("|")
    return cells[nth] if len(cells) > nth and "XLA:" not in line else ""


def main() -> None:
    """Compile, assemble, print and keep."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    rules = {}  # Titans around attention and hybrids have the rule of another preset
    for name in PRESETS:
        if not miras.preset(name).rule.memory.keeps_tokens:
            rules.setdefault(miras.preset(name).rule, name)
    names = list(rules.values())
    parser.add_argument("--presets", nargs="+", default=names, choices=names)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XLA_FLAGS"] = f"--xla_dump_to={temporary} --xla_dump_hlo_module_re=jit_total"
        topology = topologies.get_topology_desc(
            "h200", "cuda", target_config=H200, topology="1x1x1"
        )
        mesh = Mesh(np.array(topology.devices[:1]), ("gpu",), axis_types=(AxisType.Auto,))
        lines = [
            f"Made by `python -m benchmarks.gpu_static` with jax {jax.__version__}, for an H200.",
            "Forward, backward; registers and spilled bytes a thread, shared bytes a block.",
        ]
        presets = [(name, width) for name in options.presets for width in options.widths]
        for what, of_one, kernels, rows in (
            ("preset", compile_for, "miras", presets),
            ("attention", compile_attention_for, "miras_attention", ATTENTION),
        ):
            compiled = functools.partial(of_one, mesh)
            lines += ["", f"| {what} | width | registers | spilled | shared |", "|---" * 5 + "|"]
            for name, width in rows:
                lines.append(row(pathlib.Path(temporary), compiled, kernels, name, width))
                print(lines[-1], flush=True)
    spilled = [int(n) for line in lines for n in re.findall(r"\d+", _column(line, 4))]
    if max(spilled) > MOST:
        sys.exit(f"a thread spills {max(spilled)} bytes, more than {MOST}")
    if options.presets == names:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
