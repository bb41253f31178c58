"""HBM and collectives of whole train steps on meshes of TPUs, by their compiler, without a chip.

Command:   python -m benchmarks.meshes                  (rows that results/meshes.json lacks), or
           --only PART for those whose name has PART, again; `make tpu` installs the compiler.
Cost:      1 to 4 minutes a row on 2 cores (24 layers of titans_mac: 24), up to 8 GB of memory.
           Linux on x86-64.
Shows:     per run and topology: parameters; GiB of HBM a chip at the peak, of the arguments (state
           and batches) and of temporaries; collectives of the program outside and inside the loop
           over layers, by kind; seconds to compile on cores that were not idle.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results" / "meshes.json"
GIB = 2**30
RAW = argparse.RawDescriptionHelpFormatter
TITLE = """# Train steps on meshes of TPUs, by their compiler

`python -m benchmarks.meshes`; bfloat16, chunks of 64, sequences of 4096 tokens, a vocabulary of
32,000 and 0.5 M tokens a step where the name says nothing else. What the columns say: the script's
docstring.

"""
RUN = ("model.vocab=32000", "chunk=64", "data.sequence=4096", "data.batch=128", "dtype=bfloat16")
SMALL = ("layers=12", "width=768", "heads=12")
LARGE = ("layers=24", "width=2048", "heads=32", "mesh.tensor=4")
MEASURED = ("yaad", "titans_mac", "gated_deltanet")


class Case(NamedTuple):
    """One row: a preset and what differs from it on one or more slices of TPUs."""

    preset: str
    topology: str
    changes: tuple[str, ...] = SMALL
    run: tuple[str, ...] = RUN
    slices: int = 1


CASES = (
    Case("yaad", "v5e:4x4", ("layers=2", *SMALL[1:], "data.sequence=1024", "data.batch=16")),
    Case("yaad", "v5e:4x4"),
    Case("titans_mac", "v5e:4x4"),
    Case("gated_deltanet", "v5e:4x4"),
    *(Case(name, "v6e:4x4") for name in MEASURED),
    *(Case(name, "v5p:4x4x4") for name in MEASURED),
    Case("yaad", "v5e:4x4", slices=2),
    Case("titans_mac", "v5e:4x4", ("layers=24", "width=1024", "heads=16")),
    Case("yaad", "v5e:16x16", LARGE),
    Case("gated_deltanet", "v5e:16x16", LARGE),
)


def key(case: Case) -> str:
    """A row's name in the results."""
    slices = f"{case.slices}*" if case.slices > 1 else ""
    return ", ".join((case.preset, f"{slices}{case.topology}", " ".join(case.changes)))


def compiled(case: Case) -> tuple[Any, Any]:
    """The program of a run, and its compiled step."""
    from miras.backends.pallas.ahead_of_time import topology_devices
    from miras.cli.runs import run_config
    from miras.parallel import make_mesh
    from miras.train.program import TrainingProgram

    overrides = [*case.run, *case.changes]
    if case.slices > 1:
        overrides += [f"mesh.slices={case.slices}", f"mesh.data={case.slices}"]
    config = run_config(case.preset, overrides, None, rates="raw")
    mesh = make_mesh(config.mesh, topology_devices(case.topology, case.slices))
    program = TrainingProgram(config, mesh)
    return program, program.lower().compile()


def measure(case: Case) -> dict[str, Any]:
    """One row of the table."""
    import jax

    from miras.parallel.collectives import collectives

    start = time.perf_counter()
    program, step = compiled(case)
    seconds = time.perf_counter() - start
    used = step.memory_analysis()
    counts = Counter((c.depth, c.kind) for c in collectives(step.as_text()))
    return {
        "chips": program.mesh.size,
        "mesh": {name: size for name, size in program.mesh.shape.items() if size > 1},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(program.shapes.params)),
        "peak": used.peak_memory_in_bytes / GIB,
        "arguments": used.argument_size_in_bytes / GIB,
        "aliased": used.alias_size_in_bytes / GIB,
        "temporaries": used.temp_size_in_bytes / GIB,
        "collectives": {
            str(depth): {kind: counts[depth, kind] for d, kind in sorted(counts) if d == depth}
            for depth in sorted({depth for depth, _ in counts})
        },
        "seconds": seconds,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows as Markdown."""
    heads = ("preset", "topology", "size", "parameters", "mesh", "peak, GiB", "arguments")
    heads += ("temporaries", "collectives outside", "in the layers' loop", "seconds")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, row in rows.items():
        mesh = " x ".join(f"{axis}={size}" for axis, size in row["mesh"].items())
        cells = [*name.split(", "), f"{row['parameters'] / 1e6:.0f} M", mesh]
        cells += [_number(row[column]) for column in ("peak", "arguments", "temporaries")]
        for depth in ("0", "1"):
            counts = row["collectives"].get(depth, {})
            cells.append(", ".join(f"{n} {kind}" for kind, n in counts.items()))
        lines.append("| " + " | ".join((*cells, _number(row["seconds"], 0))) + " |")
    return "\n".join(lines) + "\n"


def _number(found: float | None, digits: int = 2) -> str:
    return "" if found is None else f"{found:.{digits}f}"


def main() -> None:
    """Measure rows and keep them with the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("--only", help="part of the names of the rows to measure again")
    only = parser.parse_args().only
    for case in CASES:
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if only in key(case) if only else key(case) not in rows:
            rows[key(case)] = measure(case)
            rows = {name: rows[name] for name in map(key, CASES) if name in rows}
            RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
            RESULTS.with_suffix(".md").write_text(TITLE + table(rows))
            print(table({key(case): rows[key(case)]}))


if __name__ == "__main__":
    main()
