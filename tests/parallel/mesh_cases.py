"""The loss and gradient of models on meshes of eight virtual devices, beside those of one device.

Runs in a process of its own, since the number of devices is fixed when jax starts:
`python -m tests.parallel.mesh_cases MODEL MESH ...` prints a JSON object, by mesh.
"""

import json
import os
import subprocess
import sys

from tests.models import rwkv7

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",  # compiling takes longer than the step
    "--xla_llvm_disable_expensive_passes=true",
)
MESHES = {
    "data": {"data": 8, "fsdp": 1},
    "fsdp": {"fsdp": 8},
    "fsdp_tensor": {"fsdp": 4, "tensor": 2},
    "data_fsdp_tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "fsdp_seq_tensor": {"fsdp": 2, "seq": 2, "tensor": 2},
}
SIZES = ("layers=2", "width=16", "heads=4", "data.sequence=32", "data.batch=8", "model.vocab=64")
MODELS = {
    "yaad": ("yaad", "chunk=8"),
    "titans_lmm": ("titans_lmm", "chunk=8"),
    "moneta": ("moneta", "chunk=8"),
    "memora": ("memora", "chunk=8"),
    "gated_deltanet": ("gated_deltanet", "chunk=8"),
    "kda": ("kda", "chunk=8"),
    "titans_mac": ("titans_mac", "chunk=8", "attention.segment=16", "attention.window=16"),
    "titans_mag": ("titans_mag", "chunk=8", "attention.window=8"),
    "transformer++": ("transformer++",),
    "atlas": ("atlas", "chunk=8"),
    "lact": ("lact", "chunk=8"),
    "trellis": ("trellis", "chunk=8"),
    "mamba3": ("mamba3", "chunk=8"),
    "hope": ("hope", "chunk=8"),
    "tnt_titans": ("tnt_titans", "global_chunk=16", "local_chunks=[8]"),
    "titans_caching": ("titans_caching", "chunk=8"),
    "log_linear_mamba2": ("log_linear_mamba2", "chunk=8"),
    "rwkv7": ("rwkv7", "chunk=8", *rwkv7.OPTIONS),
    "composed": (
        "yaad",
        "chunk=8",
        "pattern=M N",
        "blocks.N=gated_deltanet",
        "blocks.N.chunk=8",
        "blocks.N.heads=8",
    ),
}


def in_a_process(model, meshes, python=(sys.executable,)):
    """`differences`, measured in a process of eight virtual devices that `python` starts."""
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
    done = subprocess.run(
        [*python, "-m", "tests.parallel.mesh_cases", model, *meshes],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def run_of(model, mesh=None):
    """The config of a run of a model on a mesh."""
    from miras.cli.runs import run_config

    preset, *overrides = MODELS[model]
    axes = [f"mesh.{axis}={size}" for axis, size in (mesh or {}).items()]
    return run_config(preset, [*SIZES, *overrides, *axes], None, rates="raw")


def batch_of(config, seed=1):
    """A batch of two documents a row with masked targets, [batch, sequence]."""
    import numpy as np

    random = np.random.default_rng(seed)
    shape = config.data.batch, config.data.sequence
    half = np.arange(shape[1]) // (shape[1] // 2)
    return {
        "inputs": random.integers(0, 64, shape, dtype=np.int32),
        "targets": random.integers(0, 64, shape, dtype=np.int32),
        "segment_ids": np.broadcast_to(half + 1, shape).astype(np.int32),
        "mask": random.random(shape) < 0.9,
        "target_bytes": np.ones(shape, np.float32),
    }


def differences(model, meshes):
    """By mesh: relative differences of the loss and gradient, and what XLA inserts in loops."""
    import functools

    import jax
    from flax import nnx

    from miras.models import LanguageModel
    from miras.parallel import make_mesh
    from miras.parallel.batches import to_devices
    from miras.parallel.collectives import collectives
    from miras.train.program import TrainingProgram
    from miras.train.step import total_loss

    config = run_of(model)
    graphdef, params = nnx.split(LanguageModel(config.model, nnx.Rngs(0)), nnx.Param)
    params = nnx.to_pure_dict(params)
    batch = batch_of(config)
    gradient = jax.value_and_grad(functools.partial(total_loss, graphdef), has_aux=True)
    one_device = jax.jit(gradient)
    (nats, _), whole = jax.device_get(one_device(params, batch))
    (near, _), rounded = jax.device_get(one_device(_rounded(params), batch))
    found = {"rounding": _apart(near, nats, rounded, whole)}
    for name in meshes:
        config = run_of(model, MESHES[name])
        mesh = make_mesh(config.mesh)
        shardings = TrainingProgram(config, mesh).shardings.params
        placed = jax.device_put(params, shardings), to_devices(mesh, batch, config.data.batch)
        with jax.set_mesh(mesh):
            step = jax.jit(gradient, out_shardings=(None, shardings))
            compiled = step.lower(*placed).compile()
            (loss, _), split = jax.device_get(compiled(*placed))
        loops = [x for x in collectives(compiled.as_text()) if x.loops > 1]
        apart = _apart(loss, nats, split, whole)
        found[name] = {**apart, "inner": sorted({x.kind for x in loops})}
    return found


def _rounded(params):
    """Every parameter moved to a neighbouring float, up or down at random."""
    import jax
    import numpy as np

    random = np.random.default_rng(0)

    def move(x):
        away = np.where(random.random(x.shape) < 0.5, np.inf, -np.inf)
        return np.nextafter(np.asarray(x), away.astype(x.dtype))

    return jax.tree.map(move, params)


def _apart(loss, expected, gradient, whole):
    """Relative differences of a loss, and of a gradient in its norm."""
    import jax
    import numpy as np

    def norm(tree):
        return np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree)))

    difference = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, gradient, whole)
    return {
        "loss": float(abs(loss - expected) / abs(expected)),
        "gradient": float(norm(difference) / norm(whole)),
    }


if __name__ == "__main__":
    print(json.dumps(differences(sys.argv[1], sys.argv[2:])))
