"""A seeded generator of models: blocks of any mixers, rules and channel mixers."""

import random
from collections.abc import Mapping

import miras
from miras.errors import ConfigError
from miras.models import LanguageModelConfig

PARTS = {
    "memory": ("matrix", "matrix", '{"kind": "mlp", "expansion": 2}', "vector"),
    "bias": ("l2", "dot", "huber", '{"kind": "lp", "p": 2.5}'),
    "retention": ("none", "l2", '{"kind": "l2", "granularity": "key"}'),
    "algorithm": ("gd", "momentum", "nesterov"),
}
NAMED = ("gated_deltanet", "mamba2", "retnet", "deltanet", "yaad", "titans_lmm", "sliding_window")
WINDOW = '{"kind": "attention", "window": 3}'
MIXERS = (
    "memory",
    "memory",
    "mac",
    "mag",
    "mal",
    WINDOW,
    '{"kind": "attention", "window": 3, "kv_heads": 1}',
    '{"kind": "tnt", "global_chunk": 4, "local_chunks": [2], "shard": 4}',
    '{"kind": "tnt", "global_chunk": 8, "local_chunks": [1, 4], "shard": 8}',
    *(
        f'{{"kind": "memory_caching", "combine": "{how}", "segment": 4}}'
        for how in ("gated", "soup")
    ),
    '{"kind": "log_linear", "levels": 5}',
    '{"kind": "self_modifying", "projections_chunk": 4}',
    *(
        f'{{"kind": "parallel", "combine": "{how}", "of": ["memory", {WINDOW}]}}'
        for how in ("sum", "mean", "gate", "heads")
    ),
)
PATTERNS = ("M", "MN", "MS", "MNS", "NAM", "NS")
SMALL = ("width=8", "heads=2", "vocab=7", "chunk=4", "remat=false", "window=3", "segment=8")


def composed(seed: int) -> LanguageModelConfig:
    """The model of a seed: the first legal one that it draws."""
    draw = random.Random(seed)
    while True:
        try:
            return miras.override(miras.preset("yaad"), *_words(draw))
        except ConfigError:
            continue


def of_each(mixers: Mapping[str, str]) -> LanguageModelConfig:
    """A small model with a block of each mixer, by letter, over linear attention."""
    words = ["width=4", "heads=2", "vocab=7", "remat=false", f"layers={len(mixers)}"]
    for letter, mixer in mixers.items():
        words += [f"blocks.{letter}=linear_attention", f"{letter}.heads=none", f"{letter}.chunk=2"]
        words.append(f"{letter}.mixer={mixer}")
        words += [f"{letter}.segment=4", f"{letter}.window=2"] if mixer.startswith("ma") else []
    return miras.override(miras.preset("linear_attention"), *words, f"pattern={''.join(mixers)}")


def _words(draw: random.Random) -> list[str]:
    pattern = draw.choice(PATTERNS)
    words = [*SMALL, f"layers={len(pattern)}"]
    if "M" in pattern:
        words += [f"{axis}={draw.choice(kinds)}" for axis, kinds in PARTS.items()]
        words.append(f"M.mixer={draw.choice(MIXERS)}")
        words.append(f"channel={draw.choice(('swiglu', 'none'))}")
        words.append(f"refine={draw.choice((0, 0, 1))}")
    if "N" in pattern:
        words += [f"blocks.N={draw.choice(NAMED)}", "N.heads=none", "N.chunk=2"]
        words += ["N.segment=8", "N.window=3"] if draw.random() < 0.5 else []
        words += [f"N.mixer={draw.choice(('memory', *MIXERS))}"]
    return [*words, f"pattern={pattern}"]
