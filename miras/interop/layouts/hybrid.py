"""What hybrids of Gated DeltaNet and attention share: the pattern of layers, and SwiGLU."""

from typing import Any

from miras.interop.published import Published
from miras.interop.table import Entry, linear
from miras.mixers.channel import hidden_width
from miras.models.config import LanguageModelConfig

_LETTERS = {"linear_attention": "M", "full_attention": "A"}


def pattern(published: Published, default: list[str]) -> str:
    """The shortest pattern that repeats to the layers."""
    types = published.fields.get("layer_types") or default
    published.check(
        set(types) <= set(_LETTERS) and len(types) == published["num_hidden_layers"],
        "layer_types",
        "a list of 'linear_attention' and 'full_attention', one for each layer",
    )
    return shortest("".join(_LETTERS[name] for name in types))


def shortest(letters: str) -> str:
    """The shortest part that repeats to the whole."""
    sizes = (n for n in range(1, len(letters) + 1) if len(letters) % n == 0)
    return next(letters[:n] for n in sizes if letters[:n] * (len(letters) // n) == letters)


def layer_types(config: LanguageModelConfig) -> list[str]:
    """The inverse of `pattern`."""
    names = {letter: name for name, letter in _LETTERS.items()}
    repeats = config.layers // len(config.letters)
    return [names[letter] for letter in config.letters * repeats]


def mlp_ratio(published: Published) -> float:
    """The hidden width over the width."""
    hidden = published["intermediate_size"]
    published.check(hidden % 8 == 0, "intermediate_size", "a multiple of 8")
    return hidden / published["hidden_size"]


def swiglu(config: LanguageModelConfig) -> tuple[Entry, ...]:
    """The SwiGLU of a block."""
    hidden = hidden_width(config.width, config.mlp_ratio)
    return (
        Entry("mlp.gate_proj.weight", "mlp.gate.kernel", linear(hidden)),
        Entry("mlp.up_proj.weight", "mlp.up.kernel", linear(hidden)),
        Entry("mlp.down_proj.weight", "mlp.down.kernel", linear(config.width)),
    )


def published_fields(config: LanguageModelConfig) -> dict[str, Any]:
    """The fields of the model outside of its mixers."""
    return {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": hidden_width(config.width, config.mlp_ratio),
        "num_hidden_layers": config.layers,
        "layer_types": layer_types(config),
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie,
    }
