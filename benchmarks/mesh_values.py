"""The loss and the gradient of models on meshes of eight virtual devices, beside those of one.

Command:   python -m benchmarks.mesh_values (models that results/mesh_values.json lacks), or with
           MODEL ... for these again.
Cost:      1 to 3 minutes a model on a core that is idle, for five meshes and one device.
Shows:     relative differences of the loss, and of the gradient in its norm, from one device, in
           float32; beside them, what moving every parameter to a neighbouring float changes ("one
           rounding").
Expected:  differences of the size of one rounding: a mesh changes the order of sums alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "mesh_values.json"
RAW = argparse.RawDescriptionHelpFormatter
TITLE = """# Losses and gradients on meshes, beside one device

`python -m benchmarks.mesh_values`; relative differences from one device, loss / gradient, of small
models in float32 on eight virtual devices. What the columns say: the script's docstring.

"""


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows as Markdown."""
    from tests.parallel.mesh_cases import MESHES

    def axes(sizes: dict[str, int]) -> str:
        return " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size > 1)

    heads = ["model", "one rounding", *map(axes, MESHES.values())]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for model, row in rows.items():
        found = (row[name] for name in ("rounding", *MESHES))
        cells = (f"{x['loss']:.0e} / {x['gradient']:.0e}" for x in found)
        lines.append("| " + " | ".join((model, *cells)) + " |")
    return "\n".join(lines) + "\n"


def keep(rows: dict[str, dict[str, Any]]) -> None:
    """Write the rows and their table."""
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(TITLE + table(rows))


def main() -> None:
    """Measure models and keep their rows with the others."""
    from tests.parallel.mesh_cases import MESHES, MODELS, in_a_process

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="to measure again")
    again = parser.parse_args().models
    for model in MODELS:
        rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        if model in again if again else model not in rows:
            rows[model] = in_a_process(model, list(MESHES))
            keep({name: rows[name] for name in MODELS if name in rows})
            print(table({model: rows[model]}))


if __name__ == "__main__":
    main()
