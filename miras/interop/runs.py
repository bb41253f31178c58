"""Runs and published folders: a checkpoint as a run, and a run as a checkpoint."""

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from miras.config import require
from miras.data import DataConfig, make_tokenizer
from miras.errors import ConfigError
from miras.interop.pretrained import GENERATION, Pretrained, load_pretrained
from miras.interop.save import save_pretrained
from miras.interop.tokenizers import write_tokenizer
from miras.runtime.files import expand_home, write_atomically
from miras.train.checkpoints.checkpointer import Checkpoints
from miras.train.config import RunConfig
from miras.train.load import Run
from miras.train.optimizer import optimizer_of
from miras.train.runs import provenance
from miras.train.runs.run_folder import RunFolder
from miras.train.state import create_from, structure


def import_run(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | None = None,
) -> Pretrained:
    """Write a published checkpoint as a run at step 0.

    `miras eval`, `generate` and `train --from` take the run as one that `miras train` wrote.

    Args:
        source: folder of the checkpoint; see `load_pretrained`.
        out: folder of the run, which must be empty or not exist.
        tokenizer: as `data.tokenizer`; the tokenizer file of `source` if not given.

    Returns:
        What was read.

    Raises:
        ConfigError: the checkpoint cannot be read, there is no tokenizer or its ids are not those
            of the model, or the folder cannot be written.
    """
    read = load_pretrained(source)
    folder = RunFolder(out)
    spec = tokenizer or str(read.tokenizer or "")
    require(
        spec != "",
        f"{source} has no tokenizer.json or tokenizer.model: give one with --tokenizer FILE, or "
        "--tokenizer byte.",
    )
    words = make_tokenizer(spec)
    require(
        words.vocab_size <= read.config.vocab,
        f"the tokenizer {spec!r} has {words.vocab_size} ids, with one of its own for "
        f"the start of a document if it has none, and the model {read.config.vocab}: give the "
        "tokenizer of the model with --tokenizer.",
    )
    require(not folder.holds_run(), f"{folder.shown} holds a run: give another folder with --out.")
    kept = "byte" if spec == "byte" else os.path.abspath(spec)
    config = RunConfig(read.config, DataConfig(tokenizer=kept))
    folder.check(config)
    with folder.locked():
        folder.write_config(config, provenance.tokenizer_hash(config))
        _save(folder, config, read.params)
        if read.generation:
            write_atomically(folder.path / GENERATION, json.dumps(read.generation, indent=2) + "\n")
    return read


def _save(folder: RunFolder, config: RunConfig, params: Any) -> None:
    _, abstract = structure(config.model)
    data = config.data
    optimizer = optimizer_of(config.train, abstract, data.batch * data.sequence)
    params = jax.tree.map(jnp.asarray, params)
    state = create_from(params, optimizer, config.train.seed, config.train.master)
    checkpoints = Checkpoints(folder.checkpoints, config.train.keep)
    try:
        checkpoints.save(0, state, None)
        checkpoints.wait()
    finally:
        checkpoints.close()


def export_run(
    run: Run, out: str | os.PathLike[str], *, folder: pathlib.Path, layout: str | None = None
) -> str:
    """Write the model of a run as a folder that Hugging Face libraries read.

    Args:
        run: with its model at a checkpoint.
        out: the folder, which must be empty or not exist.
        folder: of the run, with its tokenizer and its generation_config.json.
        layout: as for `save_pretrained`.

    Returns:
        The `model_type`.

    Raises:
        ConfigError: as `save_pretrained`.
    """
    params = nnx.to_pure_dict(nnx.state(run.model, nnx.Param))
    fields = {"bos_token_id": run.tokenizer.bos_id, "eos_token_id": run.tokenizer.bos_id}
    found = save_pretrained(run.config.model, params, out, layout=layout, fields=fields)
    path = expand_home(out)
    try:
        for name in (*provenance.FILES[1:], GENERATION):
            if (folder / name).is_file():
                write_atomically(path / name, (folder / name).read_bytes())
        write_tokenizer(path, run.tokenizer)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror or error}).") from error
    return found
