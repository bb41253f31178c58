"""What each measure of a trace means: its name, its unit and one sentence."""

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure as the page tells of it.

    Attributes:
        name: short, as on a button.
        unit: what its numbers are.
        meaning: one sentence.
    """

    name: str
    unit: str
    meaning: str


LOSS = Measure(
    "loss",
    "bits",
    "How unexpected the token was to the whole model, given the text before it: -log2 of its "
    "probability; the document's start is not predicted.",
)

_MEMORY = {
    "surprise": Measure(
        "surprise",
        "norm of the gradient",
        "How much the memory would have to change to hold this token: the norm of the inner "
        "loss's gradient, taken where the update takes it, before any rate.",
    ),
    "error": Measure(
        "error when written",
        "‖M(k) − v‖ / ‖v‖",
        "How wrongly the memory answers the token's key right after the token was written: 0 is "
        "by heart, 1 is no better than no answer.",
    ),
    "kept": Measure(
        "error at the end",
        "‖M(k) − v‖ / ‖v‖",
        "The same asked of the memory after the whole text: what is still low was kept, what has "
        "risen since it was written was forgotten or overwritten.",
    ),
    "norm": Measure(
        "memory norm",
        "Frobenius norm",
        "How large the memory's weights are after the token.",
    ),
}

_GATES = {
    "lr": Measure(
        "rate", "η", "How far the memory steps along the token's gradient: 0 ignores the token."
    ),
    "decay": Measure(
        "retained",
        "α",
        "The fraction of the old memory that outlives the token: 1 forgets nothing.",
    ),
    "decay_value": Measure(
        "retained, values",
        "α",
        "The fraction of the old memory that outlives the token, by channel of the values.",
    ),
    "momentum": Measure(
        "momentum", "μ", "The fraction of past surprise that goes on moving the memory."
    ),
    "threshold": Measure(
        "threshold", "δ", "The error beyond which a token counts as an outlier and pulls less."
    ),
    "weight": Measure(
        "weight", "γ", "How much the token counts in the steps that look back on it."
    ),
    "slot": Measure("slots", "φ", "How much of the token each slot takes."),
}


def meanings(names: list[str]) -> dict[str, Measure]:
    """The measures of a trace by name, in the order of a page: memory, gates, loss."""
    gates = sorted((n for n in names if n not in _MEMORY), key=_place)
    other = {n: Measure(n.replace("_", " "), "gate", "A gate of the rule.") for n in gates}
    known = {n: meaning for n, meaning in _MEMORY.items() if n in names}
    return {**known, **{n: _GATES.get(n, other[n]) for n in gates}, "loss": LOSS}


def _place(name: str) -> tuple[int, str]:
    known = list(_GATES)
    return (known.index(name) if name in known else len(known)), name
