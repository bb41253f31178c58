"""save_pretrained: a model as a folder that Hugging Face libraries read."""

import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from miras.config import require
from miras.errors import ConfigError
from miras.interop import recurrent, safetensors
from miras.interop.known import known_layouts, layout_of
from miras.interop.layout import Layout, flat
from miras.models.config import LanguageModelConfig
from miras.runtime.files import check_target, expand_home, write_atomically


def save_pretrained(
    config: LanguageModelConfig,
    params: Any,
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> str:
    """Write `config.json` and `model.safetensors`, and `modeling_miras.py` if it is needed.

    Args:
        config: of the model.
        params: its parameters, nested dicts of arrays.
        out: the folder, which must be empty or not exist.
        layout: `model_type` of the layout, or "miras" for `modeling_miras.py`; by default the first
            published layout that fits, and "miras" if none does.
        fields: further ones of config.json, such as `bos_token_id`.

    Returns:
        The `model_type`.

    Raises:
        ConfigError: the layout does not have the model, or the folder cannot be written.
    """
    path = expand_home(out)
    require(
        not path.exists() or (path.is_dir() and not any(path.iterdir())),
        f"{path} is not empty: give another folder.",
    )
    params = jax.tree.map(np.asarray, params)
    chosen = None if layout == recurrent.MODEL_TYPE else _published(config, layout)
    if chosen is not None:
        tensors = chosen.tensors(config, params)
        own = {"architectures": [chosen.architecture], **chosen.published(config)}
    else:
        tensors = recurrent.tensors(config, flat(params))
        own = {"architectures": ["MirasForCausalLM"], **recurrent.published(config, tensors)}
    found = recurrent.MODEL_TYPE if chosen is None else chosen.model_type
    # Classes of published models have ids of their own vocabularies as defaults.
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    content = {"model_type": found, "dtype": "float32", **ids, **(fields or {}), **own}
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_target(path / "config.json")
        safetensors.write(path / safetensors.SINGLE, tensors)
        write_atomically(path / "config.json", json.dumps(content, indent=2) + "\n")
        if chosen is None:
            write_atomically(path / recurrent.NAME, recurrent.SOURCE.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror or error}).") from error
    return found


def _published(config: LanguageModelConfig, name: str | None) -> Layout | None:
    """The published layout of this name, or the first that fits; None if none does."""
    if name is None:
        fits = (layout for layout in known_layouts().values() if not layout.mismatch(config))
        return next(fits, None)
    layout = layout_of(name)
    why = layout.mismatch(config)
    require(
        not why,
        f"the model is not one of model_type={name!r}, from which it differs in "
        f"{'; '.join(why[:3])}{' and more' if len(why) > 3 else ''}: export it with another "
        "layout, or without --layout.",
    )
    return layout
