"""The layout of models that have no published one: `modeling_miras.py`, a recurrence in PyTorch.

The file `modeling_miras.py.txt` is copied beside the weights, from where transformers runs it with
`trust_remote_code=True`. Its table SUPPORTED says which parts it computes; config.json describes
the blocks in the words of the parts' own configs.
"""

import ast
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from miras.config import to_dict
from miras.config.choices import shown
from miras.engine.trajectory import dual_start
from miras.errors import ConfigError
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_widths
from miras.mixers import MemoryMixer, NoChannel, SwiGLUChannel
from miras.models.block_config import BlockConfig
from miras.models.config import LanguageModelConfig
from miras.rule.rule import Rule

NAME = "modeling_miras.py"
SOURCE = pathlib.Path(__file__).parent / f"{NAME}.txt"
MODEL_TYPE = "miras"


def supported() -> dict[str, list[str]]:
    """The kinds of parts by axis that `modeling_miras.py` computes."""
    for node in ast.parse(SOURCE.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SUPPORTED":
            return ast.literal_eval(node.value)
    raise AssertionError("no SUPPORTED")


def refusals(config: LanguageModelConfig) -> list[str]:
    """Why `modeling_miras.py` does not compute a model; empty if it does."""
    blocks = [config.block(letter) for letter in dict.fromkeys(config.letters)]
    found = [reason for block in blocks for reason in _refusals(block)]
    if config.norm_kind != "rms":
        found.append(f"norm_kind={config.norm_kind!r} is not 'rms'")
    if config.embedding_norm:
        found.append("embedding_norm=true has a norm of the embedding")
    return found


def _refusals(block: BlockConfig) -> Iterator[str]:
    if not isinstance(block.mixer, MemoryMixer):
        yield f"mixer {block.mixer.kind!r} is not a memory alone"
        return
    if not isinstance(block.channel, SwiGLUChannel | NoChannel):
        yield f"channel {block.channel.kind!r} is none of 'swiglu' and 'none'"
    if block.norm != "pre":
        yield f"norm={block.norm!r} is not before the mixers"
    rule = block.rule
    for axis, kinds in supported().items():
        if rule.kinds()[axis] not in kinds:
            yield f"{axis} {rule.kinds()[axis]!r} is none of {', '.join(kinds)}"
    yield from _of_rule(rule)
    if block.refine:
        yield f"refine={block.refine} takes gradients of a chunk again"
    yield from _of_layer(block.layer)


def _of_rule(rule: Rule) -> Iterator[str]:
    algorithm = rule.algorithm
    if algorithm.averaged:
        yield "averaged steps count from a chunk's start"
    if algorithm.granularity != "head":
        yield f"algorithm.granularity={algorithm.granularity!r} has rates per channel"
    if rule.retention.uses_rate and rule.retention.linked is not None:
        yield f"retention {rule.kinds()['retention']!r} here makes decays and rates of each other"


def _of_layer(layer: LayerConfig) -> Iterator[str]:
    plain = {
        "keys": ("plain", "product", "rwkv7", "comba"),
        "gates": ("plain", "scaled"),
        "mimo": (1,),
        "kv_heads": (None,),
        "qk_norm": (None, "l2", "rms"),
        "rope_share": (1.0,),
        "output_gate_by": ("silu",),
        "output_gate_rank": (None,),
        "output_norm_kind": ("rms",),
        "token_shift": (False,),
        "value_residual": (False,),
        "bonus": (False,),
        "gate_activation": (None,),
        "decay_bound": (None,),
        "erase_eps": (1e-6,),
        "lr_by_position": (False,),
    }
    for name, legal in plain.items():
        if getattr(layer, name) not in legal:
            yield f"layer.{name}={shown(getattr(layer, name))} is none of {legal}"
    if layer.rope and layer.rope_angles != "position":
        yield f"layer.rope_angles={layer.rope_angles!r} turns by tokens"


def published(config: LanguageModelConfig, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The fields of config.json.

    Raises:
        ConfigError: `modeling_miras.py` does not compute the model.
    """
    why = refusals(config)
    if why:
        raise ConfigError(
            f"the model has no published layout, and {NAME} does not compute it: {'; '.join(why)}."
        )
    blocks = [config.block(letter) for letter in config.letters]
    return {
        "auto_map": {
            "AutoConfig": "modeling_miras.MirasConfig",
            "AutoModelForCausalLM": "modeling_miras.MirasForCausalLM",
        },
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "norm_eps": config.norm_eps,
        "tie_word_embeddings": False,  # the file reads the embedding where there is no head
        "blocks": [_block(block, config.width, block.heads or config.heads) for block in blocks],
        "shapes": {name.removeprefix("model."): list(w.shape) for name, w in tensors.items()},
        "miras": to_dict(config),
    }


def _block(block: BlockConfig, width: int, heads: int) -> dict[str, Any]:
    rule = block.rule
    key, value = head_widths(block.layer, width, heads)
    names = jax.eval_shape(lambda: rule.memory.init(jax.random.key(0), key, value))
    gates = [
        {
            "name": gate.name,
            "role": gate.role,
            "side": gate.side,
            "range": gate.range,
            "upper": gate.upper if np.isfinite(gate.upper) else None,
            "learned": gate.learned,
            "constant": gate.constant(heads).tolist(),
        }
        for gate in rule.gates
    ]
    axes = ("memory", "bias", "retention", "algorithm")
    return {
        **{axis: to_dict(getattr(rule, axis)) for axis in axes},
        "order": rule.order,
        "read": rule.read,
        "linked": rule.retention.linked,
        "lag": rule.retention.lag,
        "sequential": rule.algorithm.sequential,
        "fixed": list(rule.memory.fixed),
        "sides": {name: list(rule.memory.sides(name)) for name in names},
        "gates": gates,
        "exact": block.exact,
        "chunk": block.chunk,
        "layer": to_dict(block.layer),
    }


def tensors(config: LanguageModelConfig, params: Any) -> dict[str, np.ndarray]:
    """The parameters by name, a layer each; memories begin at their dual start.

    Args:
        config: of the model.
        params: its parameters by dotted path, those of blocks stacked over the groups.
    """
    letters, found = config.letters, {}
    for path, value in params.items():
        if not path.startswith("groups.blocks."):
            found[f"model.{path}"] = value
            continue
        name, _, inner = path.removeprefix("groups.blocks.").partition(".")
        for group in range(config.layers // len(letters)):
            n = group * len(letters) + int(name[1:])
            found[f"model.layers.{n}.{inner}"] = value[group]
    for n in range(config.layers):
        block = config.block(letters[n % len(letters)])
        found |= _started(f"model.layers.{n}.mixer.fast.initial.", block, config, found)
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def _started(
    prefix: str, block: BlockConfig, config: LanguageModelConfig, found: dict[str, Any]
) -> dict[str, np.ndarray]:
    rule, heads = block.rule, block.heads or config.heads
    if not isinstance(block.mixer, MemoryMixer):
        return {}
    if block.layer.initial == "zero":
        key, value = head_widths(block.layer, config.width, heads)
        raw = rule.init_raw(jax.random.key(0), key, value, heads)
        return {prefix + name: np.zeros(w.shape, np.float32) for name, w in raw.items()}
    raw = {n.removeprefix(prefix): jnp.asarray(w) for n, w in found.items() if n.startswith(prefix)}
    weights = rule.constrain(raw)
    fast = {name: w for name, w in weights.items() if name not in rule.memory.fixed}
    started = {**weights, **dual_start(rule, fast)}
    return {prefix + name: np.asarray(w) for name, w in started.items()}
