"""What devices that split heads exchange inside the loops of a self-modifying memory."""

import json
import os
import subprocess

import pytest

ROWS, TILE, WIDTH = 2, 4, 8
WORDS = ("layers=1", f"width={WIDTH}", "heads=4", f"chunk={TILE}", "data.sequence=12", "remat=none")
WORDS += (f"data.batch={ROWS}", "model.vocab=16", "mesh.tensor=2", "mesh.max_replicated=1")


def _inside_the_loop_over_tiles():
    """Kinds and sizes of the collectives of a forward pass of HOPE on two devices."""
    import functools

    import jax

    from miras.cli.runs import run_config
    from miras.parallel import make_mesh
    from miras.parallel.collectives import collectives
    from miras.train.program import TrainingProgram
    from miras.train.step import total_loss

    config = run_config("hope", list(WORDS), None, rates="raw")
    mesh = make_mesh(config.mesh)
    program = TrainingProgram(config, mesh)
    state, batches, _ = program.inputs()
    batch = {n: jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for n, array in batches.items()}
    with jax.set_mesh(mesh):
        loss = jax.jit(functools.partial(total_loss, program.graphdef))
        text = loss.lower(state.params, batch).compile().as_text() or ""
    # XLA unrolls the loop over one layer, so the names of operations count the loops.
    return [(found.kind, found.bytes) for found in collectives(text) if found.depth > 1]


@pytest.mark.slow
def test_a_tile_of_self_modifying_memories_gathers_two_answers(python):
    """Rates and decays are read from the answers of all heads; all else stays on a device."""
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    code = "import json; from tests.parallel.test_inner_collectives import "
    code += "_inside_the_loop_over_tiles as found; print(json.dumps(found()))"
    done = subprocess.run(
        [*python, "-c", code],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [["all-gather", 4 * ROWS * TILE * WIDTH]] * 2
