"""Reads models that were exported in their published layouts, in an environment with torch.

    python tests/interop/read_published.py FOLDER

Each subfolder has a checkpoint that `save_pretrained` wrote, and the `logits.npz` of the model that
it was imported from. Prints a line a model: its name and the largest difference of logits, relative
to their size.
"""

import pathlib
import sys

import generate_vectors  # beside this file
import numpy as np
import torch


def main(folder):
    """All of them; those of flash-linear-attention first."""
    paths = {path.name: path for path in pathlib.Path(folder).iterdir()}
    for name, make in generate_vectors.MODELS.items():
        model = type(make()).from_pretrained(paths[name]).eval()
        kept = np.load(paths[name] / "logits.npz")
        with torch.no_grad():
            logits = model(torch.tensor(kept["tokens"]), use_cache=False).logits.numpy()
        size = np.abs(kept["logits"]).max()
        print(name, np.abs(logits - kept["logits"]).max() / size, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
