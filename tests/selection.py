"""Which of many similar tests run in `make quick`, in `make test`, or only in `make exhaustive`.

Choices depend on the hash of a test's name, so they are the same in every run and on every machine.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

import pytest

# Marks of tests that take long or need something that an edit loop does without.
NOT_QUICK = frozenset({"slow", "multiprocess", "tpu_aot", "gpu", "interop", "exhaustive"})


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


def sampled_values(cases: Mapping[str, tuple[Any, ...]], sample: Collection[str]) -> list[Any]:
    """As `sampled`, for a test of several parameters: their values by the name of a case."""
    return [
        pytest.param(*values, id=name, marks=[pytest.mark.exhaustive] * (name not in sample))
        for name, values in cases.items()
    ]


def mark_exhaustive(items: Iterable[pytest.Item]) -> None:
    """Mark as `exhaustive` all but a share of the cases of tests marked `sample(share)`.

    Cases are chosen by the rank of their whole name, so tests that range over one registry take
    different members of it. Where a test has several parameters, every value of each is in a case
    that is left; where it has one, at least one case is left.
    """
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sample") and not item.get_closest_marker("exhaustive"):
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for cases in tests.values():
        (share,) = cases[0].get_closest_marker("sample").args
        left = covering(_values_of_several(cases), share)
        left = left or {min((item.nodeid for item in cases), key=rank)}
        for item in cases:
            if item.nodeid not in left:
                item.add_marker("exhaustive")


def _values_of_several(cases: Collection[Any]) -> dict[str, set[tuple[str, int]]]:
    """The values of each case, by parameter and rank; none where one parameter has them all."""
    columns: dict[tuple[int, ...], str] = {}  # parameters given together are numbered alike
    for name in next(iter(cases)).callspec.params:
        values = [repr(item.callspec.params[name]) for item in cases]
        columns.setdefault(tuple(map(values.index, values)), name)
    several = columns if len(columns) > 1 else {}
    return {
        item.nodeid: {(name, numbers[n]) for numbers, name in several.items()}
        for n, item in enumerate(cases)
    }


# How many quick tests each collected file has, in a run's `config.stash`.
QUICK = pytest.StashKey[Counter[str]]()


def count_quick(items: Iterable[pytest.Item]) -> Counter[str]:
    """The quick tests of each file that was collected, 0 included."""
    counts = Counter[str]()
    for item in items:
        counts[item.nodeid.partition("::")[0]] += item.get_closest_marker("quick") is not None
    return counts


def leave_out(config: pytest.Config, items: list[Any]) -> None:
    """Deselect `exhaustive`, `gpu` and `interop`, unless `-m` or a test's name asks for them."""
    for mark in ("exhaustive", "gpu", "interop"):
        if mark in (config.option.markexpr or ""):
            continue
        out = {
            item.nodeid
            for item in items
            if item.get_closest_marker(mark)
            and not any(arg.endswith(item.nodeid) for arg in config.args)
        }
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in out])
        items[:] = [item for item in items if item.nodeid not in out]


# Folders whose tests compile programs, of which `make quick` runs so many a file.
COMPILING = (
    "analysis",
    "attention",
    "backends",
    "cli",
    "conformance",
    "engine",
    "layers",
    "mixers",
    "models",
    "sequence",
    "tasks",
    "train",
)
A_FILE = 2


def mark_quick(items: Iterable[pytest.Item]) -> None:
    """Mark as `quick` one case of each fast test, and a few tests of a file that compiles."""
    fast = [item for item in items if not any(item.get_closest_marker(m) for m in NOT_QUICK)]
    functions, files = set(), Counter[str]()
    for item in sorted(fast, key=lambda item: rank(item.nodeid)):
        function = item.nodeid.partition("[")[0]
        file = function.partition("::")[0]
        compiles = file.split("/")[1] in COMPILING
        if function not in functions and not (compiles and files[file] >= A_FILE):
            functions.add(function)
            files[file] += 1
            item.add_marker("quick")
