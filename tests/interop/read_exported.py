"""Reads exported models with transformers, in an environment with torch, and compares logits.

    python tests/interop/read_exported.py FOLDER

Prints a line a model: its name and the largest differences of logits, relative to their size, of
the whole text, of a prefill and single tokens, and of rows with padding on the left.
"""

import pathlib
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def read(folder):
    """The three differences."""
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    kept = np.load(folder / "logits.npz")
    tokens, expected = torch.tensor(kept["tokens"]).long(), kept["logits"]
    split, size = int(kept["split"]), np.abs(expected).max()
    with torch.no_grad():
        whole = model(tokens).logits
        out = model(tokens[:, :split])
        pieces = [out.logits]
        for t in range(split, tokens.shape[1]):
            out = model(tokens[:, t : t + 1], state=out.state)
            pieces.append(out.logits)
        padded = torch.cat([torch.zeros_like(tokens[:, :3]), tokens], 1)
        mask = torch.cat([torch.zeros_like(tokens[:, :3]), torch.ones_like(tokens)], 1)
        left = model(padded, attention_mask=mask).logits[:, 3:]
        written = model.generate(tokens[:1, :split], max_new_tokens=3, do_sample=False)
        assert written.shape == (1, split + 3)
        step = model(written[:, :-1]).logits[0, -1]
        assert written[0, -1] == step.argmax(), "generation differs from a call of the whole"
    found = (whole, torch.cat(pieces, 1), left)
    return [float(np.abs(y.numpy() - expected).max() / size) for y in found]


if __name__ == "__main__":
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        if (path / "logits.npz").is_file():
            print(path.name, *(f"{x:.3g}" for x in read(path)), flush=True)
