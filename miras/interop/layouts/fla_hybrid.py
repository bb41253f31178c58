"""Attention in some layers of flash-linear-attention's models: the field `attn` of a config.

It has the numbers of its layers, heads, a window and the base of RoPE, or is a list of such; a
letter of the pattern stands for each.
"""

from typing import Any

from miras.config import FrozenMapping
from miras.interop.layouts import fla, hybrid
from miras.interop.published import Published
from miras.interop.table import Entry, linear
from miras.mixers import AttentionMixer
from miras.models.block_config import BlockConfig
from miras.models.config import LanguageModelConfig

_LETTERS = "ABCDEFGH"  # of attention; M is the memory
_DEFAULTS = {"num_kv_heads": None, "qkv_bias": False, "window_size": None, "rope_theta": 10000.0}


def model_fields(published: Published) -> dict[str, Any]:
    """The pattern and the blocks of attention."""
    attn, layers = published["attn"], published["num_hidden_layers"]
    specs = [] if attn is None else [attn] if isinstance(attn, dict) else list(attn)
    named = [n for spec in specs for n in spec.get("layers", ())]
    published.check(
        len(specs) <= len(_LETTERS)
        and len(set(named)) == len(named) < layers
        and set(named) <= set(range(layers))
        and all(spec.get("num_heads") and not spec.get("qkv_bias") for spec in specs),
        "attn",
        f"none, or up to {len(_LETTERS)} specifications with num_heads and without qkv_bias, "
        "each of other layers, which leave a layer to the memory",
    )
    blocks, letters = {}, ["M"] * layers
    for letter, spec in zip(_LETTERS, specs):
        given = _DEFAULTS | spec
        attention = AttentionMixer(
            window=given["window_size"],
            rope_base=given["rope_theta"],
            kv_heads=given["num_kv_heads"] or given["num_heads"],
            head_width=published["hidden_size"] // given["num_heads"],
        )
        blocks[letter] = BlockConfig(attention, heads=given["num_heads"])
        for n in given["layers"]:
            letters[n] = letter
    return {"pattern": hybrid.shortest("".join(letters)), "blocks": FrozenMapping(blocks)}


def published_fields(config: LanguageModelConfig) -> dict[str, Any]:
    """The inverse of `model_fields`."""
    whole = config.letters * (config.layers // len(config.letters))
    specs = []
    for letter in sorted(config.blocks):
        block = config.blocks[letter]
        attention: Any = block.mixer
        found = {
            "layers": [n for n, own in enumerate(whole) if own == letter],
            "num_heads": block.heads or config.heads,
            "num_kv_heads": attention.kv_heads,
            "window_size": attention.window,
            "rope_theta": attention.rope_base,
        }
        specs.append(_DEFAULTS | found)
    return {"attn": specs[0] if len(specs) == 1 else specs or None}


def attention(config: LanguageModelConfig, letter: str) -> tuple[Entry, ...]:
    """The projections of a block of attention."""
    block = config.block(letter)
    heads = block.heads or config.heads
    streams = fla.streams(block.mixer.layer_of(block), config.width, heads)
    return (
        *(
            Entry(f"attn.{name}_proj.weight", f"mixer.qkv.{name}.linear.kernel", linear(1, *shape))
            for name, shape in streams.items()
        ),
        Entry("attn.o_proj.weight", "mixer.out.kernel", linear(config.width)),
    )
