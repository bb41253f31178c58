"""Presets: the named models of the literature, as configs.

Each is a `LanguageModelConfig` of the same small size; `miras.override` changes any field. Values
that the papers do not give are chosen such that the inner loss falls and the outer gradient is of
order one at initialisation, for any chunk (docs/concepts.md, "Initialisation").
"""

# In the order of the table.
from miras.presets import linear, delta, deep, context, titans, hybrids, caching, log_linear  # noqa: I001
from miras.presets import slots, tnt, hope
from miras.presets.registry import ALIASES, PRESETS, Preset, find, preset, register

__all__ = [
    "ALIASES",
    "PRESETS",
    "Preset",
    "caching",
    "context",
    "deep",
    "delta",
    "find",
    "hope",
    "hybrids",
    "linear",
    "log_linear",
    "preset",
    "register",
    "slots",
    "titans",
    "tnt",
]
