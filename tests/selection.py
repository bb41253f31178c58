"""Which of many similar tests run in `make quick`, in `make test`, or only in `make exhaustive`.

Choices depend on the hash of a test's name, so they are the same in every run and on every machine.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import pytest

# Marks of tests that take long or need something that an edit loop does without.
NOT_QUICK = frozenset({"slow", "multiprocess", "tpu_aot", "gpu", "exhaustive"})


def rank(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def covering(labels: Mapping[str, Collection[Hashable]], share: float = 0.0) -> set[str]:
    """A small set of names that has every label, and a share of the other names.

    Args:
        labels: what each name covers.
        share: of all names, how many are taken for their rank alone.
    """
    taken = {name for name in labels if rank(name) < share}
    missing = {label for own in labels.values() for label in own}
    missing -= {label for name in taken for label in labels[name]}
    while missing:
        best = max(labels, key=lambda name: (len(missing.intersection(labels[name])), rank(name)))
        taken.add(best)
        missing.difference_update(labels[best])
    return taken


def sampled(names: Iterable[str], sample: Collection[str]) -> list[Any]:
    """Parameters of a test: all names, those outside the sample marked `exhaustive`."""
    return [
        pytest.param(name, id=name, marks=[pytest.mark.exhaustive] * (name not in sample))
        for name in names
    ]


def mark_quick(items: Iterable[pytest.Item], at_most: int) -> None:
    """Mark as `quick` every fast test, and of a parametrised one at most so many cases."""
    fast = [item for item in items if not any(item.get_closest_marker(m) for m in NOT_QUICK)]
    kept: Counter[str] = Counter()
    for item in sorted(fast, key=lambda item: rank(item.nodeid)):
        function = item.nodeid.partition("[")[0]
        if kept[function] < at_most:
            kept[function] += 1
            item.add_marker("quick")
