"""The fingerprint in the header of a session of format 2, which identifies its model.

It is a digest of the parameters and of the model's config as JSON, with the fields that configs had
in that format. Format 3 stores the config itself, so that new fields do not change it.
"""

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
from flax import nnx

from miras.config import Config
from miras.models.language_model import LanguageModel

FORMAT = "miras session 2"

# The fields of each config class in format 2, in order. Never change them.
_FIELDS = {
    "Adaptive": "window lr max_lr data_dependent granularity weight momentum every lr_at variant "
    "beta2 eps sharpness",
    "AttentionConfig": "window segment persistent rope_base",
    "Bregman": "decay spread slopes data_dependent granularity min_log_decay potential link_every",
    "ElasticNet": "form c1 c2 gamma threshold link_every",
    "FDivergence": "generator scale axis link_every",
    "Features": "inner map degree",
    "GD": "lr max_lr data_dependent granularity",
    "GatedMLP": "expansion hidden residual norm eps",
    "Huber": "variant delta data_dependent",
    "Implicit": "lr max_lr data_dependent granularity",
    "KL": "decay spread slopes data_dependent granularity min_log_decay scale axis coupled "
    "link_every",
    "KV": "window scale persistent",
    "L1": "smooth sharpness",
    "L2": "decay spread slopes data_dependent granularity min_log_decay tied discretised",
    "LanguageModelConfig": "rule architecture pattern attention vocab width layers heads "
    "chunk refine exact mlp_ratio layer tie dtype remat save_every precision",
    "LayerConfig": "conv activation qk_norm keys rope rope_base gate_rank output_norm output_gate "
    "decay_by_depth lr_by_position",
    "Lp": "p smooth sharpness eps",
    "Lq": "decay spread slopes data_dependent granularity min_log_decay q form link_every",
    "MLP": "depth expansion hidden activation residual norm affine eps",
    "Momentum": "lr max_lr data_dependent granularity momentum",
    "MultiStep": "lr max_lr data_dependent granularity steps",
    "Muon": "window lr max_lr data_dependent granularity weight momentum every lr_at steps",
    "Nesterov": "lr max_lr data_dependent granularity momentum",
    "Newton": "lr max_lr data_dependent granularity ridge solver iterations",
    "NonParametric": "lr max_lr data_dependent granularity",
    "Omega": "window lr max_lr data_dependent granularity weight momentum",
    "Precision": "state matmul accumulation",
    "Projection": "decay spread slopes data_dependent granularity min_log_decay radius link_every",
    "Robust": "radius",
    "Rows": "axis link_every",
    "Rule": "memory bias retention algorithm order read",
    "Slots": "count write scale",
    "Transformed": "window lr max_lr data_dependent granularity weight momentum every lr_at",
}


def fingerprint(model: LanguageModel) -> str | None:
    """16 hex digits of a model's config and parameters; None if the config uses later fields."""
    try:
        text = json.dumps(_to_dict(model.config))
    except LookupError:
        return None
    digest = hashlib.sha256(text.encode())
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        digest.update("/".join(map(str, path)).encode())
        digest.update(np.asarray(leaf[...]).tobytes())
    return digest.hexdigest()[:16]


def _to_dict(config: Config) -> dict[str, Any]:
    """The config as a dict with the fields of format 2.

    Raises:
        LookupError: if a later field does not have its default value.
    """
    cls, fields = type(config), {field.name: field for field in dataclasses.fields(config)}
    known = [*fields]
    if cls.__module__.startswith("miras."):
        known = _FIELDS.get(cls.__name__, "").split()
    for name, field in fields.items():
        if name not in known and getattr(config, name) != _default(field):
            raise LookupError(name)
    found: dict[str, Any] = {"kind": config.kind} if hasattr(config, "kind") else {}  # pyright: ignore
    return found | {name: _plain(getattr(config, name)) for name in known}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return _to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
