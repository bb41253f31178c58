"""Sessions: the state of a model on disk.

The file format is safetensors: every leaf of the state by its path, and the logits of the next
token. The header has the config and a digest of the parameters of the model that wrote it, and a
digest of the file.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import safe_open
from safetensors.flax import save

from miras.array_typing import Array
from miras.config import difference, from_dict, require, to_dict
from miras.errors import ConfigError
from miras.models import session_format_2
from miras.models.config import LanguageModelConfig
from miras.models.language_model import LanguageModel, check_state
from miras.models.state import ModelState, batch_of, growing_caches, reserved, with_cache_length
from miras.runtime.files import check_target, expand_home, write_atomically

_FORMAT = "miras session 3"
_LOGITS = "logits"
_HEADER = "miras"  # the key of the file's metadata


class Session(NamedTuple):
    """The state of a model after a text.

    Attributes:
        state: of B rows.
        logits: of the next token, [B, vocab] float32.
        tokens: number of tokens read by each row.
    """

    state: ModelState
    logits: Array
    tokens: int


def fingerprint(model: LanguageModel) -> str:
    """16 hex digits of a model's config and parameters."""
    return _identity(model, _parameters(model))


def _identity(model: LanguageModel, parameters: str) -> str:
    text = json.dumps(to_dict(model.config), sort_keys=True) + parameters
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _parameters(model: LanguageModel) -> str:
    """16 hex digits of a model's parameters."""
    digest = hashlib.sha256()
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        digest.update("/".join(map(str, path)).encode())
        digest.update(np.asarray(leaf[...]).tobytes())
    return digest.hexdigest()[:16]


def check_session_file(path: str | os.PathLike[str]) -> None:
    """Check that a session can be written: the path is a regular file, or does not exist.

    Raises:
        ConfigError: for any other path, or a folder that is missing or not writable.
    """
    require(os.fspath(path) != "", "the session's path is empty: give the name of a file.")
    path = expand_home(path)
    try:
        require(not path.is_dir(), f"session {path} is a folder: give the name of a file.")
        require(
            path.parent.is_dir(),
            f"session {path} cannot be written, since there is no folder {path.parent}: create it, "
            "or give another file.",
        )
        check_target(path)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"session {str(path)[:60]!r} cannot name a file ({error}): give another file."
        ) from error
    require(
        os.access(path.parent, os.W_OK | os.X_OK),
        f"session {path} cannot be written, since folder {path.parent} is not writable: make it "
        "writable, or give another file.",
    )


def resumed(path: str | os.PathLike[str] | None, model: LanguageModel) -> Session | None:
    """The session of `load_session`; None without a path, or if the file does not exist."""
    if path is None or not expand_home(path).exists():
        return None
    return load_session(path, model)


def save_session(
    path: str | os.PathLike[str],
    model: LanguageModel,
    session: Session,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write a session to a file; an existing file is replaced when the new one is complete.

    Args:
        path: a regular file, or a path that does not exist.
        model: of the state.
        session: to save.
        notes: JSON values that the caller needs to continue; `load_notes` reads them.

    Raises:
        ConfigError: for a state of another model, or a file that cannot be written.
    """
    check_state(model, session.state)
    check_session_file(path)
    path = expand_home(path)
    tensors = {name: jnp.asarray(leaf) for name, leaf in _named(session.state)}
    tensors[_LOGITS] = session.logits
    parameters = _parameters(model)
    header = {
        "format": _FORMAT,
        "model": _identity(model, parameters),
        "config": to_dict(model.config),
        "parameters": parameters,
        "tokens": int(session.tokens),
        "rows": batch_of(session.state),
        "reserved": any(kept.reserved for kept in growing_caches(session.state)),
        "notes": dict(notes or {}),
    }
    header["digest"] = _digest(header, tensors)
    try:
        write_atomically(path, save(tensors, {_HEADER: json.dumps(header)}))
    except OSError as error:
        raise ConfigError(
            f"cannot write session {path} ({error.strerror or error}): free space, or give another "
            "file; the old file is unchanged."
        ) from error


def load_session(path: str | os.PathLike[str], model: LanguageModel) -> Session:
    """Read a session that the same model wrote.

    Raises:
        ConfigError: for a file that is missing or damaged, or of another model.
    """
    path = expand_home(path)
    header, tensors = _read(path)
    _check_model(path, header, model)
    state = _state(path, header, tensors, model)
    return Session(state, jnp.asarray(tensors[_LOGITS]), header["tokens"])


def load_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The notes that were passed to `save_session`.

    Raises:
        ConfigError: for a file that is missing or damaged.
    """
    return _read(expand_home(path))[0]["notes"]


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header, with its types checked, and the tensors."""
    require(path.is_file(), f"session {path} does not exist: give the file of a session.")
    try:
        with safe_open(path, framework="flax") as file:
            metadata = file.metadata() or {}
            require(_HEADER in metadata, f"{path} is not a session of miras: give another file.")
            header = json.loads(metadata[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except ConfigError:
        raise
    except Exception as error:  # a forged file can raise nearly any exception
        raise _damaged(path, error) from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no mapping")
    found = header.get("format")
    require(
        found in (_FORMAT, session_format_2.FORMAT),
        f"session {path} has format {str(found)[:40]!r}, not {_FORMAT!r}: load it with the version "
        "of miras that wrote it.",
    )
    for name, kind in _TYPES.items():
        if name in ("config", "parameters", "notes") and found == session_format_2.FORMAT:
            continue
        if type(header.get(name)) is not kind:
            raise _damaged(path, f"its {name} is {str(header.get(name))[:40]!r}")
    if not 0 <= header["tokens"] < 2**63:
        raise _damaged(path, f"its tokens are {str(header['tokens'])[:40]}")
    if header.pop("digest") != _digest(header, tensors):
        raise _damaged(path, "its numbers are not those that were written")
    return {"notes": {}} | header, tensors


_TYPES = {
    "model": str,
    "config": dict,
    "parameters": str,
    "tokens": int,
    "rows": int,
    "reserved": bool,
    "notes": dict,
    "digest": str,
}


def _check_model(path: pathlib.Path, header: dict[str, Any], model: LanguageModel) -> None:
    """Raise ConfigError for a session of another model."""
    parameters, why = _parameters(model), ""
    if header["format"] == session_format_2.FORMAT:
        same = header["model"] == session_format_2.fingerprint(model)
    else:
        try:
            changed = difference(from_dict(LanguageModelConfig, header["config"]), model.config)
        except (ConfigError, RecursionError) as error:
            changed = [str(error).rstrip(".")]
        same = not changed and header["parameters"] == parameters
        why = f" ({'; '.join(changed[:4])})" if changed else ""
    require(
        same,
        f"session {path} belongs to model {header['model'][:40]}, and this is "
        f"{_identity(model, parameters)}{why}: a session is valid only for the model and the step "
        "that wrote it, so give that run, or another file.",
    )


def _state(
    path: pathlib.Path, header: dict[str, Any], tensors: dict[str, Any], model: LanguageModel
) -> ModelState:
    """The model's state from tensors; their names, shapes and dtypes are checked."""
    logits, rows = tensors.get(_LOGITS), header["rows"]
    shape = (rows, model.config.vocab)
    if logits is None or rows < 1 or logits.shape != shape or logits.dtype != jnp.float32:
        raise _damaged(path, f"its logits are not float32 {list(shape)}")
    graph, params = nnx.split(model)

    def start(params, most: int) -> ModelState:
        state = nnx.merge(graph, params).init_state(rows)
        return with_cache_length(state, most) if most else state

    template = jax.eval_shape(lambda params: start(params, 0), params)
    empty = [n for n, leaf in _named(template) if 0 in leaf.shape]  # growing caches, still empty
    visible = [tensors[n].shape for n in empty if n.endswith("visible") and n in tensors]
    most = max((shape[-1] for shape in visible if shape), default=0)
    template = jax.eval_shape(lambda params: start(params, most), params)
    template = reserved(template, header["reserved"])
    leaves = []
    for name, like in _named(template):
        leaf = tensors.get(name, tensors.get(name.replace("window.gates.", "window.")))
        if leaf is None:
            raise _damaged(path, f"it has no {name}; another version of miras may have written it")
        if leaf.shape != like.shape or leaf.dtype != like.dtype:
            raise _damaged(path, f"its {name} is {leaf.dtype} {list(leaf.shape)}")
        leaves.append(jnp.asarray(leaf))
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _damaged(path: pathlib.Path, why: object) -> ConfigError:
    return ConfigError(
        f"session {path} cannot be read ({why}): it is truncated or damaged, so begin a new "
        "session in another file."
    )


def _digest(header: dict[str, Any], tensors: dict[str, Any]) -> str:
    """16 hex digits of the header and the tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, leaf in sorted(tensors.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _named(state: ModelState) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]
