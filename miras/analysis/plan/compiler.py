"""Compiles the step of a run for a TPU topology, in a process of its own that dumps its buffers.

    python -m miras.analysis.plan.compiler CONFIG.json TOPOLOGY SLICES RESULT.json DUMP [PLUGIN ...]

XLA reads the flags of the dump once a process, and compiling takes gigabytes that end with it.
`compiled` starts it and reads the result.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from miras.config import from_dict, plugins


def compile_step(config: Any, topology: str, slices: int, dump: Path) -> dict[str, Any]:
    """Bytes of HBM, collectives, kernels and seconds of a step; or the compiler's error.

    Args:
        config: the run.
        topology: of a slice, as in "v5e:4x4".
        slices: their number.
        dump: the folder that `schedule.FLAGS` named.
    """
    import jax

    from miras.analysis.plan.step_kernels import step_kernels
    from miras.backends.pallas.ahead_of_time import topology_devices
    from miras.parallel import make_mesh
    from miras.parallel.collectives import between_slices, collectives
    from miras.train.program import TrainingProgram

    start = time.perf_counter()
    mesh = make_mesh(config.mesh, topology_devices(topology, slices))
    try:
        program = TrainingProgram(config, mesh)
        step: Any = program.compile()
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).partition("\n")[0], "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    used, text = step.memory_analysis(), step.as_text()
    count: Counter[tuple[str, int]] = Counter()
    size: Counter[tuple[str, int]] = Counter()
    for found in collectives(text):
        key = found.kind, min(found.depth, 1)
        count[key] += found.runs
        size[key] += found.runs * found.bytes
    kernels: list[dict[str, Any]] = []
    unscheduled = ""
    try:
        found_kernels = step_kernels(program.trace().jaxpr.jaxpr, text, dump)
        kernels = [kernel._asdict() for kernel in found_kernels]
    except ValueError as error:
        unscheduled = str(error)
    return {
        "peak": used.peak_memory_in_bytes,
        "arguments": used.argument_size_in_bytes,
        "temporaries": used.temp_size_in_bytes,
        "collectives": [
            {"kind": kind, "in_layers": bool(depth), "count": n, "bytes": size[kind, depth]}
            for (kind, depth), n in sorted(count.items())
        ],
        "between_slices": [{"kind": kind, "bytes": n} for kind, n in between_slices(text)],
        "kernels": kernels,
        "unscheduled": unscheduled,
        "seconds": seconds,
    }


def main(argv: list[str]) -> None:
    """Compile, and write the result."""
    from miras.train.config import RunConfig

    config, topology, slices, result, dump, *sources = argv
    for source in sources:
        plugins.load(source)
    run = from_dict(RunConfig, json.loads(Path(config).read_text()))
    Path(result).write_text(json.dumps(compile_step(run, topology, int(slices), Path(dump))))


if __name__ == "__main__":
    main(sys.argv[1:])
