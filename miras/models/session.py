"""Sessions: a reader's state on disk, to go on from tomorrow or elsewhere.

A file is safetensors: every leaf of the state by its path, the logits of the next token, and in the
header the fingerprint of the model that wrote it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.flax import save

from miras.config import require, to_json
from miras.engine import KVState
from miras.errors import ConfigError
from miras.models.language_model import LanguageModel, ModelState
from miras.models.rows import batch_of
from miras.typing import Array

_FORMAT = "miras session 1"
_LOGITS = "logits"


class Session(NamedTuple):
    """Where a model stands in a text.

    Attributes:
        state: of B rows.
        logits: of the next token, [B, vocab] float32.
        tokens: read so far, by each row.
    """

    state: ModelState
    logits: Array
    tokens: int


def fingerprint(model: LanguageModel) -> str:
    """16 hex digits of a model's config and parameters."""
    digest = hashlib.sha256(to_json(model.config, indent=None).encode())
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        digest.update("/".join(map(str, path)).encode())
        digest.update(np.asarray(leaf[...]).tobytes())
    return digest.hexdigest()[:16]


def save_session(path: str | os.PathLike[str], model: LanguageModel, session: Session) -> None:
    """Write a session; a file of this name is replaced only once the new one is complete.

    Raises:
        ConfigError: where it cannot be written.
    """
    path = pathlib.Path(path).expanduser()
    tensors = {name: jnp.asarray(leaf) for name, leaf in _named(session.state)}
    header = {
        "format": _FORMAT,
        "model": fingerprint(model),
        "tokens": session.tokens,
        "rows": batch_of(session.state),
        "reserved": any(kept.reserved for kept in _kept(session.state)),
    }
    new = path.with_name(path.name + ".new")
    data = save(tensors | {_LOGITS: session.logits}, {"miras": json.dumps(header)})
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise ConfigError(
            f"cannot write session {path} ({error.strerror or error}): free space, or give another "
            "file; what was there is as it was."
        ) from error


def load_session(path: str | os.PathLike[str], model: LanguageModel) -> Session:
    """Read a session that the same model wrote.

    Raises:
        ConfigError: for a file that is missing, damaged, or of another model.
    """
    path = pathlib.Path(path).expanduser()
    require(path.is_file(), f"session {path} does not exist: give a file that a session wrote.")
    try:
        with safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
            require("miras" in metadata, f"{path} holds no session of miras: give another file.")
            header = json.loads(metadata["miras"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"session {path} cannot be read ({error}): it is truncated or damaged, so begin a new "
            "one in another file."
        ) from error
    require(
        header.get("format") == _FORMAT,
        f"session {path} is of format {header.get('format')!r}, not {_FORMAT!r}: it was written by "
        "another version of miras.",
    )
    own = fingerprint(model)
    require(
        header["model"] == own,
        f"session {path} belongs to model {header['model']}, and this is {own}: its memories mean "
        "nothing to another model or step, so give the run that wrote it, or another file.",
    )
    graph, params = nnx.split(model)
    start = lambda params: nnx.merge(graph, params).init_state(header["rows"])  # noqa: E731
    template = jax.eval_shape(start, params)
    template = _reserved(template, header["reserved"])
    names = [name for name, _ in _named(template)]
    leaves = [jnp.asarray(tensors[name]) for name in names]
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Session(state, jnp.asarray(tensors[_LOGITS]), header["tokens"])


def _named(state: ModelState) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _is_kept(x: Any) -> bool:
    return isinstance(x, KVState) and x.grows


def _kept(state: ModelState) -> list[KVState]:
    return [leaf for leaf in jax.tree.leaves(state, is_leaf=_is_kept) if _is_kept(leaf)]


def _reserved(state: ModelState, reserved: bool) -> ModelState:
    """With room in memories that keep all tokens, or without: a static field."""

    def mark(x: Any) -> Any:
        return dataclasses.replace(x, reserved=reserved) if _is_kept(x) else x

    return jax.tree.map(mark, state, is_leaf=_is_kept)
