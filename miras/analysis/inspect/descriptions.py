"""The name, unit and description of each measure of a trace."""

from typing import NamedTuple


class MeasureDescription(NamedTuple):
    """The description of a measure on the page.

    Attributes:
        name: short, for a button.
        unit: of its numbers.
        meaning: one sentence.
    """

    name: str
    unit: str
    meaning: str


LOSS = MeasureDescription(
    "loss",
    "bits",
    "-log2 of the probability that the whole model gives the token after the text before it; the "
    "document start is not predicted.",
)

_MEMORY = {
    "surprise": MeasureDescription(
        "surprise",
        "norm of the gradient",
        "The norm of the inner loss's gradient at the token, at the weights where the update takes "
        "it, before the learning rate.",
    ),
    "error": MeasureDescription(
        "error when written",
        "‖M(k) − v‖ / ‖v‖",
        "The memory's relative error at the token's key right after the token's write: 0 is exact, "
        "1 is that of a zero output.",
    ),
    "kept": MeasureDescription(
        "error at the end",
        "‖M(k) − v‖ / ‖v‖",
        "The same error after the whole text: low if the memory has kept the token, higher than "
        "when written if it was forgotten or overwritten.",
    ),
    "norm": MeasureDescription(
        "memory norm",
        "Frobenius norm",
        "The norm of the memory's weights after the token.",
    ),
}

_GATES = {
    "lr": MeasureDescription(
        "rate", "η", "The learning rate of the token's gradient step: 0 ignores the token."
    ),
    "decay": MeasureDescription(
        "retained",
        "α",
        "The fraction of the old memory that is retained: 1 forgets nothing.",
    ),
    "decay_value": MeasureDescription(
        "retained, values",
        "α",
        "The fraction of the old memory that is retained, per value channel.",
    ),
    "momentum": MeasureDescription(
        "momentum", "μ", "The fraction of the momentum buffer that is retained."
    ),
    "threshold": MeasureDescription(
        "threshold",
        "δ",
        "The error above which a token counts as an outlier, with a bounded gradient.",
    ),
    "weight": MeasureDescription(
        "weight", "γ", "The weight of the token in the steps whose window contains it."
    ),
    "slot": MeasureDescription("slots", "φ", "The write weight of each slot."),
}


def describe_measures(names: list[str]) -> dict[str, MeasureDescription]:
    """The descriptions of a trace's measures by name, in the page's order: memory, gates, loss."""
    gates = sorted((n for n in names if n not in _MEMORY), key=_order)
    other = {
        n: MeasureDescription(n.replace("_", " "), "gate", "A gate of the rule.") for n in gates
    }
    known = {n: meaning for n, meaning in _MEMORY.items() if n in names}
    return {**known, **{n: _GATES.get(n, other[n]) for n in gates}, "loss": LOSS}


def _order(name: str) -> tuple[int, str]:
    known = list(_GATES)
    return (known.index(name) if name in known else len(known)), name
