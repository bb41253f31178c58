"""Compiles the kernels of rules for a v5e, in a process of its own, and prints their schedules.

    LIBTPU_INIT_ARGS=FLAGS python -m tests.analysis.plan.compile_kernels DUMP HEADS TOKENS CASE ...

A CASE is the rule, the dtype, the width of a head and the chunk, as `benchmarks.tpu_schedule` names
its rows.
"""

import json
import sys
from pathlib import Path
from typing import Any


def kernels_of(case: str, heads: int, tokens: int, dump: Path) -> list[dict[str, Any]]:
    """The kernels of a case. Its listings are the newest of their names in the dump."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh

    import miras
    from benchmarks.tpu_schedule import Case, case_of
    from miras.analysis.plan.step_kernels import step_kernels
    from miras.backends.pallas.ahead_of_time import topology_devices

    name, dtype, width, chunk = case.split(", ")
    row = Case(name, dtype, int(width), int(chunk))
    rule, options, shapes = case_of(row, heads=heads, tokens=tokens)

    def total(inputs):
        y, _ = miras.scan(rule, *inputs, **options)
        return jnp.sum(y.astype(jnp.float32))

    with jax.set_mesh(Mesh(np.array(topology_devices("v5e:2x2")[:1]), ("chip",))):
        traced = jax.jit(jax.grad(total)).trace(shapes)
        text = traced.lower(lowering_platforms=("tpu",)).compile().as_text() or ""
    return [kernel._asdict() for kernel in step_kernels(traced.jaxpr.jaxpr, text, dump)]


if __name__ == "__main__":
    folder, number, length, *cases = sys.argv[1:]
    found = [kernels_of(case, int(number), int(length), Path(folder)) for case in cases]
    print(json.dumps(found))
