"""Sessions: a reader's state on disk, to go on from tomorrow or elsewhere.

A file is safetensors: every leaf of the state by its path, the logits of the next token, and in the
header the fingerprint of the model that wrote it and a digest of it all.
"""

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
from miras.errors import ConfigError
from miras.models.language_model import LanguageModel
from miras.models.rows import check_state
from miras.models.state import ModelState, batch_of, growing, reserved
from miras.typing import Array

_FORMAT = "miras session 2"
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


def check_session_file(path: str | os.PathLike[str]) -> None:
    """Raise `ConfigError` for a place where no session could be written."""
    require(os.fspath(path) != "", "the session's name is empty, but has to name a file.")
    path = pathlib.Path(path).expanduser()
    require(not path.is_dir(), f"session {path} is a folder: give the name of a file.")
    require(
        path.parent.is_dir(),
        f"session {path} cannot be written: there is no folder {path.parent}, so make it, or give "
        "another file.",
    )


def resumed(path: str | os.PathLike[str] | None, model: LanguageModel) -> Session | None:
    """What `load_session` reads; None without a path, or where no file is yet."""
    if path is None or not pathlib.Path(path).expanduser().exists():
        return None
    return load_session(path, model)


def save_session(path: str | os.PathLike[str], model: LanguageModel, session: Session) -> None:
    """Write a session; a file of this name is replaced only once the new one is complete.

    Raises:
        ConfigError: for a state that is not the model's, or where it cannot be written.
    """
    check_state(model, session.state)
    check_session_file(path)
    path = pathlib.Path(path).expanduser()
    tensors = {name: jnp.asarray(leaf) for name, leaf in _named(session.state)}
    tensors[_LOGITS] = session.logits
    header = {
        "format": _FORMAT,
        "model": fingerprint(model),
        "tokens": session.tokens,
        "rows": batch_of(session.state),
        "reserved": any(kept.reserved for kept in growing(session.state)),
    }
    header["digest"] = _digest(header, tensors)
    new = path.with_name(path.name + ".new")
    data = save(tensors, {"miras": json.dumps(header)})
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
    except ConfigError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    require(
        header.get("format") == _FORMAT,
        f"session {path} is of format {header.get('format')!r}, not {_FORMAT!r}: it was written by "
        "another version of miras.",
    )
    own = fingerprint(model)
    require(
        header.get("model") == own,
        f"session {path} belongs to model {header.get('model')}, and this is {own}: its memories "
        "mean nothing to another model or step, so give the run that wrote it, or another file.",
    )
    if header.pop("digest", None) != _digest(header, tensors):
        raise _damaged(path, "its numbers are not those that were written")
    graph, params = nnx.split(model)
    start = lambda params: nnx.merge(graph, params).init_state(header["rows"])  # noqa: E731
    template = reserved(jax.eval_shape(start, params), header["reserved"])
    leaves = [jnp.asarray(tensors[name]) for name, _ in _named(template)]
    state = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return Session(state, jnp.asarray(tensors[_LOGITS]), header["tokens"])


def _damaged(path: pathlib.Path, why: object) -> ConfigError:
    return ConfigError(
        f"session {path} cannot be read ({why}): it is truncated or damaged, so begin a new one in "
        "another file."
    )


def _digest(header: dict[str, Any], tensors: dict[str, Any]) -> str:
    """16 hex digits of all that a file holds."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, leaf in sorted(tensors.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _named(state: ModelState) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
