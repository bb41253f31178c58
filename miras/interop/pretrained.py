"""load_pretrained: a published checkpoint as a config and parameters, and back."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax

from miras.config import require
from miras.errors import ConfigError
from miras.interop import safetensors
from miras.interop.known import layout_of
from miras.interop.layout import Layout
from miras.models.config import LanguageModelConfig
from miras.runtime.files import expand_home

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


class Pretrained(NamedTuple):
    """A published checkpoint.

    Attributes:
        config: of the model.
        params: its parameters, nested dicts of float32 arrays.
        layout: in which they were published.
        tokenizer: file of the tokenizer; None without one.
        generation: the fields of generation_config.json; empty without one.
    """

    config: LanguageModelConfig
    params: Any
    layout: Layout
    tokenizer: pathlib.Path | None
    generation: dict[str, Any]


def load_pretrained(folder: str | os.PathLike[str]) -> Pretrained:
    """Read a folder that `save_pretrained` of transformers wrote; nothing is computed.

    Args:
        folder: with `config.json` and the weights in safetensors, in one file or in several with an
            index.

    Raises:
        ConfigError: a file is missing or damaged, its `model_type` or a field of its config is not
            one that miras represents, or its tensors are not those of the config.
    """
    path = expand_home(folder)
    fields = read_json(path / CONFIG)
    if isinstance(fields.get("text_config"), dict):  # of a model that also takes images
        fields = fields["text_config"]
    layout = layout_of(fields.get("model_type"))
    config = layout.read_config(fields)
    params = layout.parameters(config, safetensors.read_folder(path))
    _check_shapes(config, params)
    found = [path / name for name in TOKENIZERS if (path / name).is_file()]
    generation = read_json(path / GENERATION) if (path / GENERATION).is_file() else {}
    return Pretrained(config, params, layout, next(iter(found), None), generation)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ConfigError: it cannot be read, or has no object.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}): give the folder of a checkpoint that transformers "
            "saved."
        ) from error
    require(isinstance(found, dict), f"{path} has no JSON object: download it again.")
    return found


def _check_shapes(config: LanguageModelConfig, params: Any) -> None:
    from flax import nnx

    from miras.models.language_model import LanguageModel

    abstract = nnx.eval_shape(lambda: LanguageModel(config, nnx.Rngs(0)))
    expected = nnx.to_pure_dict(nnx.state(abstract, nnx.Param))
    shapes = [
        {jax.tree_util.keystr(p, simple=True, separator="."): leaf.shape for p, leaf in leaves}
        for tree in (expected, params)
        for leaves in [jax.tree_util.tree_leaves_with_path(tree)]
    ]
    wrong = [n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n)]
    require(
        not wrong,
        f"parameter {wrong and wrong[0]} has shape {wrong and shapes[1].get(wrong[0])} in the "
        f"checkpoint and {wrong and shapes[0].get(wrong[0])} in its config: give the config.json "
        "of this checkpoint.",
    )


def model_of(pretrained: Pretrained) -> Any:
    """The `LanguageModel` with the parameters of a checkpoint."""
    from flax import nnx

    from miras.models.language_model import LanguageModel

    abstract = nnx.eval_shape(lambda: LanguageModel(pretrained.config, nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract, nnx.Param)
    state.replace_by_pure_dict(jax.tree.map(jax.numpy.asarray, pretrained.params))
    return nnx.merge(graphdef, state)
