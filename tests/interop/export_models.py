"""Writes exported models with random parameters, and their logits, for `read_exported.py`.

python -m tests.interop.export_models FOLDER [PRESET ...]
"""

import pathlib
import sys

import jax
import numpy as np
from flax import nnx

import miras
from miras.config import override
from miras.interop import save_pretrained
from miras.models import LanguageModel
from miras.presets.registry import PRESETS

SMALL = ("width=16", "layers=2", "heads=2", "vocab=31", "chunk=4", "layer.gate_rank=4")
SPLIT = 7


def model_of(preset, seed=0):
    """A small model of a preset, whose parameters are all away from 0 and 1."""
    model = LanguageModel(override(miras.preset(preset), *SMALL), nnx.Rngs(seed))
    state = nnx.state(model, nnx.Param)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [w + 0.1 * jax.random.normal(key, w.shape) for w, key in zip(leaves, keys)]
    nnx.update(model, jax.tree.unflatten(structure, noisy))
    return model


def export(preset, folder):
    """Write a model in the layout miras, with `logits.npz`."""
    model = model_of(preset)
    tokens = np.asarray(jax.random.randint(jax.random.key(3), (2, 12), 0, 31))
    logits, _ = nnx.jit(lambda model, tokens: model(tokens))(model, tokens)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    save_pretrained(model.config, params, folder, layout="miras")
    np.savez(folder / "logits.npz", tokens=tokens, logits=logits, split=SPLIT)


def computed():
    """The presets that `modeling_miras.py` computes."""
    from miras.interop import recurrent

    return [name for name in PRESETS if not recurrent.refusals(miras.preset(name))]


def main(folder, *presets):
    """Write all, or those that are named."""
    for preset in presets or computed():
        out = pathlib.Path(folder) / preset
        out.mkdir(parents=True)
        export(preset, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
