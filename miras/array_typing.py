"""The glossary of shapes, as jaxtyping aliases.

B batch, T time, H heads, C tokens of a chunk, Dk key and query width, Dv value width. Fast weights
are dicts from a weight's name to [in, out] or [out]; `scan` sees them with a leading [H] or [B, H].
"""

from jaxtyping import Array, Bool, Float, Int

Queries = Float[Array, "B T H Dk"]
Keys = Float[Array, "B T H Dk"]
Values = Float[Array, "B T H Dv"]
Gates = dict[str, Float[Array, "B T H"]]
Mask = Bool[Array, "B T"]
SegmentIds = Int[Array, "B T"]

Tokens = Float[Array, "C D"]  # one head's keys, queries, values or layer inputs in a chunk
PerToken = Float[Array, " C"]  # one head's gate in a chunk
Leaf = Float[Array, "*shape"]  # one weight: [in, out] or [out]
Weights = dict[str, Leaf]  # W, A or S

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Gates",
    "Int",
    "Keys",
    "Leaf",
    "Mask",
    "PerToken",
    "Queries",
    "SegmentIds",
    "Tokens",
    "Values",
    "Weights",
]
