"""Splits of labelled sequences: those of the source, held-out ones, and folds."""

from __future__ import annotations

from miras.data.labelled.example import Labelled
from miras.errors import ConfigError


def choose(
    parts: dict[str, list[Labelled]],
    split: str,
    *,
    validation: float,
    seed: int,
    folds: int,
    fold: int,
) -> list[Labelled]:
    """The sequences of a split.

    With `folds`, those of the source are divided into folds of about equal size, each with all
    classes in their shares: fold number `fold` is held out, and the others are trained on.
    Otherwise a source has its own "test" and "validation", and what it lacks of the two is held out
    from "train": a share `validation` of each class. Both go by a hash of each sequence and the
    seed, so that equal sequences are on one side.

    Args:
        parts: see `source.read_labelled`.
        split: "train", "validation" or "test".
        validation: the held-out share, in (0, 1).
        seed: of the hash.
        folds: their number; 0 for none.
        fold: the held-out one.

    Raises:
        ConfigError: the split is empty, or the source has a test set and folds.
    """
    if folds:
        if len(parts) > 1:
            raise ConfigError(
                f"task.folds={folds} divides the sequences of one table, but the source has a test "
                "or validation set of its own: leave out task.folds."
            )
        place = _places(parts["train"], seed)
        wanted = split == "train"
        found = [x for x in parts["train"] if (place[x.text] % folds != fold) == wanted]
    elif split in parts and split != "train":
        found = parts[split]
    elif split == "test" and "validation" in parts:
        found = parts["validation"]
    else:
        held_out = set() if "validation" in parts else _held_out(parts["train"], validation, seed)
        found = [x for x in parts["train"] if (x.text in held_out) == (split != "train")]
    if not found:
        raise ConfigError(
            f"the {split} split has no sequences: give more of them, or raise data.validation."
        )
    return found


def _places(examples: list[Labelled], seed: int) -> dict[bytes, int]:
    """The place of each different sequence among those of its class, in the order of hashes."""
    by_class: dict[str, dict[bytes, int]] = {}
    for example in examples:
        by_class.setdefault(example.label, {})[example.text] = example.key(seed)
    places: dict[bytes, int] = {}
    for keys in by_class.values():
        for n, text in enumerate(sorted(keys, key=lambda text: keys[text])):
            places.setdefault(text, n)
    return places


def _held_out(examples: list[Labelled], share: float, seed: int) -> set[bytes]:
    """The share of each class that comes first in the order of hashes; at least one of two."""
    places = _places(examples, seed)
    sizes: dict[str, int] = {}
    for label in {example.label for example in examples}:
        sizes[label] = len({x.text for x in examples if x.label == label})
    return {
        x.text
        for x in examples
        if places[x.text] < min(max(1, round(share * sizes[x.label])), sizes[x.label] - 1)
    }
