"""The tree of presets, in which each follows the earlier model whose config is nearest to its own.

It is made from the registry alone. The arXiv numbers of papers give the order, the parts and
options in which configs differ give the distance, and the modules of presets give the families.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from miras.config import to_dict
from miras.models import LanguageModelConfig
from miras.presets import PRESETS
from miras.presets.registry import Preset

# What a changed kind of part, another option of a rule or a block, one of the layer around it or of
# how it is computed, and a number that models tune add to a distance.
KIND, OPTION, OUTSIDE, NUMBER = 1.0, 0.6, 0.3, 0.01
_SIZES = ("vocab", "width", "layers", "heads", "mlp_ratio", "tie", "dtype", "remat", "backend")
_SIZES += ("save_every", "precision", "chunk", "refine")


class Relative(NamedTuple):
    """A model of the tree.

    Attributes:
        preset: its entry in the registry.
        family: the first words of the module that defines it.
        date: of the paper, in years, as in 2025.3; without a paper that of the newest one.
        parent: the name of the model before it; None for the first.
        changes: what leads from the parent to it, as in "bias l2".
        depth: number of models before it.
    """

    preset: Preset
    family: str
    date: float
    parent: str | None
    changes: tuple[str, ...]
    depth: int


def lineage() -> list[Relative]:
    """The presets, each after its parent and with its own followers behind it, by date."""
    entries = list(PRESETS.values())
    dates = {entry.name: _date(entry) for entry in entries}
    newest = max((date for date in dates.values() if date is not None), default=0.0)
    known = {name: newest if date is None else date for name, date in dates.items()}
    ordered = sorted(entries, key=lambda entry: known[entry.name])
    fields = {entry.name: _described(entry.build()) for entry in ordered}
    parents: dict[str, str | None] = {}
    for entry in ordered:
        own = fields[entry.name]
        near = {name: _distance(fields[name], own) for name in parents}
        parents[entry.name] = min(near, key=lambda name: near[name], default=None)
    by_name = {entry.name: entry for entry in ordered}

    def branch(name: str, depth: int) -> Iterator[Relative]:
        entry, parent = by_name[name], parents[name]
        changes = () if parent is None else tuple(_changes(fields[parent], fields[name]))
        yield Relative(entry, _family(entry), known[name], parent, changes, depth)
        for follower in (other for other, before in parents.items() if before == name):
            yield from branch(follower, depth + 1)

    roots = [name for name, parent in parents.items() if parent is None]
    return [relative for root in roots for relative in branch(root, 0)]


def _date(entry: Preset) -> float | None:
    """The date in an arXiv number, YYMM.NNNNN; the number within the month keeps its order."""
    month, _, number = entry.paper.partition(".")
    if len(month) != 4 or not (month + number).isdecimal():
        return None
    day = min(int(number) / 10 ** len(number), 0.99)
    return 2000 + int(month[:2]) + (int(month[2:]) - 1 + day) / 12


def _family(entry: Preset) -> str:
    module = sys.modules.get(entry.build.__module__)
    text = (module and module.__doc__) or "Plugins"
    return re.split(r"[\n:,.]", text.strip(), maxsplit=1)[0]


def _described(config: LanguageModelConfig) -> dict[str, Any]:
    """What a model is, by path: its parts, options and blocks, without sizes."""
    own = {name: x for name, x in to_dict(config).items() if name not in _SIZES}
    own["blocks"] = {letter: _block(config, letter) for letter in config.blocks}
    return dict(_flat(own))


def _block(config: LanguageModelConfig, letter: str) -> dict[str, Any]:
    block = to_dict(config.blocks[letter])
    return {name: x for name, x in block.items() if name not in _SIZES}


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, x in value.items():
            yield from _flat(x, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for n, x in enumerate(value):
            yield from _flat(x, f"{path}.{n}")
    else:
        yield path, value


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Path, new value and whether it is a kind, for what differs outside of changed parts."""
    kinds = {
        path.removesuffix(".kind"): x
        for path, x in after.items()
        if path.endswith(".kind") and before.get(path) != x
    }
    for path, kind in kinds.items():
        if not any(path.startswith(f"{other}.") for other in kinds):
            yield path, kind, True
    for path in dict.fromkeys([*after, *before]):
        if before.get(path) == after.get(path) or path.endswith(".kind"):
            continue
        if not any(path == part or path.startswith(f"{part}.") for part in kinds):
            yield path, after.get(path), False


def _distance(before: dict[str, Any], after: dict[str, Any]) -> float:
    return sum(_weight(*change) for change in _differences(before, after))


def _weight(path: str, value: Any, kind: bool) -> float:
    if kind:
        return KIND
    if _is_tuned(value):
        return NUMBER
    return OUTSIDE if path == "exact" or "layer" in path.split(".") else OPTION


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The differences in words; numbers that are tuned only if nothing else differs."""
    found = list(_differences(before, after))
    named = [change for change in found if change[2] or not _is_tuned(change[1])]
    for path, value, _ in named or found:
        yield f"{path.rpartition('.')[2]} {_told(value)}"


def _is_tuned(value: Any) -> bool:
    return isinstance(value, float)


def _told(value: Any) -> str:
    words = {None: "none", True: "on", False: "off"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
