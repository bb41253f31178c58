"""What each measure of a trace means: its name, its unit and one sentence."""

from typing import NamedTuple


class MeasureDescription(NamedTuple):
    """A measure as the page tells of it.

    Attributes:
        name: short, as on a button.
        unit: what its numbers are.
        meaning: one sentence.
    """

    name: str
    unit: str
    meaning: str


LOSS = MeasureDescription(
    "loss",
    "bits",
    "How unexpected the token was to the whole model, given the text before it: -log2 of its "
    "probability; the document's start is not predicted.",
)

_MEMORY = {
    "surprise": MeasureDescription(
        "surprise",
        "norm of the gradient",
        "How much the memory would have to change to hold this token: the norm of the inner "
        "loss's gradient, taken where the update takes it, before any rate.",
    ),
    "error": MeasureDescription(
        "error when written",
        "‖M(k) − v‖ / ‖v‖",
        "How wrongly the memory answers the token's key right after the token was written: 0 is "
        "by heart, 1 is no better than no answer.",
    ),
    "kept": MeasureDescription(
        "error at the end",
        "‖M(k) − v‖ / ‖v‖",
        "The same asked of the memory after the whole text: what is still low was kept, what has "
        "risen since it was written was forgotten or overwritten.",
    ),
    "norm": MeasureDescription(
        "memory norm",
        "Frobenius norm",
        "How large the memory's weights are after the token.",
    ),
}

_GATES = {
    "lr": MeasureDescription(
        "rate", "η", "How far the memory steps along the token's gradient: 0 ignores the token."
    ),
    "decay": MeasureDescription(
        "retained",
        "α",
        "The fraction of the old memory that outlives the token: 1 forgets nothing.",
    ),
    "decay_value": MeasureDescription(
        "retained, values",
        "α",
        "The fraction of the old memory that outlives the token, by channel of the values.",
    ),
    "momentum": MeasureDescription(
        "momentum", "μ", "The fraction of past surprise that goes on moving the memory."
    ),
    "threshold": MeasureDescription(
        "threshold", "δ", "The error beyond which a token counts as an outlier and pulls less."
    ),
    "weight": MeasureDescription(
        "weight", "γ", "How much the token counts in the steps that look back on it."
    ),
    "slot": MeasureDescription("slots", "φ", "How much of the token each slot takes."),
}


def describe_measures(names: list[str]) -> dict[str, MeasureDescription]:
    """The measures of a trace by name, in the order of a page: memory, gates, loss."""
    gates = sorted((n for n in names if n not in _MEMORY), key=_place)
    other = {
        n: MeasureDescription(n.replace("_", " "), "gate", "A gate of the rule.") for n in gates
    }
    known = {n: meaning for n, meaning in _MEMORY.items() if n in names}
    return {**known, **{n: _GATES.get(n, other[n]) for n in gates}, "loss": LOSS}


def _place(name: str) -> tuple[int, str]:
    known = list(_GATES)
    return (known.index(name) if name in known else len(known)), name
