"""The whole design space as axes with options, and small sets of rules that cover it.

Kinds come from the registries: a member that `VARIANTS` does not know is taken with its defaults.
"""

import functools
import itertools
from typing import Any

import numpy as np

import miras
from miras.rule import legality

REGISTRIES = {
    "memory": miras.memory.Memory.registry,
    "bias": miras.bias.Bias.registry,
    "retention": miras.retention.Retention.registry,
    "algorithm": miras.optim.Algorithm.registry,
}
# Options of a member that are worth a rule of their own.
VARIANTS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "memory": {
        "mlp": [
            {"expansion": 1},
            {"depth": 1, "norm": "rms", "affine": True, "biases": True},
            {"depth": 3, "hidden": 3, "residual": False, "norm": None, "activation": "silu"},
        ],
        "gated_mlp": [{"expansion": 1}, {"expansion": 1, "residual": True, "norm": "layer"}],
        "slots": [{"count": 3, "write": write} for write in ("gate", "tied", "gradient")],
        "compressed_slots": [{"count": 3}, {"count": 3, "linear_writes": True}],
        "features": [
            {"map": "elu"},
            {"map": "relu2", "inner": {"kind": "mlp", "expansion": 1}},
            {"map": "polynomial"},
            {"map": "taylor"},
        ],
        "kv": [{"window": 2}],
    },
    "bias": {
        "lp": [{"p": 3.0}, {"p": 1.5}],
        "huber": [{"variant": variant} for variant in ("coordinate", "norm", "mixture")],
        "robust": [{"radius": 0.3}],
    },
    "retention": {
        "l2": [
            {},
            {"granularity": "key"},
            {"granularity": "value"},
            {"granularity": "key_value"},
            {"granularity": "slot"},
            {"granularity": "key", "tied": True},
            {"discretised": True},
        ],
        "lq": [{"q": 4.0, "link_every": "chunk"}, {"q": 3.0, "form": "mirror"}],
        "kl": [
            {"scale": 3.0, "link_every": "chunk"},
            {"scale": 2.0, "axis": 1, "granularity": "value"},
            {"scale": 2.0, "coupled": True},
        ],
        "f_divergence": [{"generator": "hellinger", "scale": 2.0}],
        "elastic_net": [
            {"link_every": "chunk"},
            {"threshold": "smooth"},
            {"form": "ftrl", "threshold": "smooth", "link_every": "chunk"},
        ],
        "bregman": [{"potential": "sigmoid", "granularity": "key"}],
        "projection": [{"radius": 0.7, "data_dependent": True}],
        "rows": [{"axis": 1}, {"link_every": "chunk"}],
    },
    "algorithm": {
        "gd": [{}, {"granularity": "key"}, {"averaged": True}],
        "implicit": [{}, {"granularity": "value"}],
        "newton": [{"iterations": 4}, {"solver": "exact"}],
        "omega": [{"window": 2}, {"window": 3, "momentum": 0.9, "weight": 0.5}],
        "muon": [
            {"steps": 2, "momentum": 0.9},
            {"steps": 1, "window": 2, "lr_at": "gradient"},
            {"steps": 2, "every": "chunk", "lr_at": "gradient"},
        ],
        "adaptive": [
            {"eps": 0.1, "momentum": 0.9},
            {"eps": 0.1, "every": "chunk"},
            {"variant": "sign", "sharpness": 3.0, "window": 2},
        ],
    },
}
# How a rule is run, and over which tokens: arguments of `miras.scan`.
FORMS: dict[str, dict[str, Any]] = {"plain": {}, "refine": {"refine": 1}, "exact": {"exact": True}}
TOKENS: dict[str, dict[str, Any]] = {
    "all": {},
    "mask": {"mask": np.array([[True, False, True]])},
    "segments": {"segment_ids": np.array([[0, 1, 1]])},
}
Case = tuple[int, ...]  # the place of the option taken on each axis


def kinds(axis: str) -> list[str]:
    """The members that come with miras; those of tests and plugins have tests of their own."""
    registry = REGISTRIES[axis]
    return [k for k in registry.names() if registry.get(k).__module__.startswith("miras.")]


@functools.cache
def axes() -> dict[str, list[Any]]:
    """Every axis with its options."""
    parts = {
        axis: [
            {"kind": kind, **more}
            for kind in kinds(axis)
            for more in VARIANTS[axis].get(kind, [{}])
        ]
        for axis in REGISTRIES
    }
    return {
        **parts,
        "order": ["learn_first", "decay_first"],
        "read": ["token", "snapshot"],
        "form": list(FORMS),
        "tokens": list(TOKENS),
    }


@functools.lru_cache(1 << 16)
def _rule(parts: Case) -> miras.Rule | None:
    names = dict(zip(axes(), parts))
    try:
        return miras.Rule(**{axis: axes()[axis][place] for axis, place in names.items()})
    except miras.ConfigError:
        return None


def build(case: Case) -> tuple[miras.Rule, dict[str, Any]] | None:
    """The rule of a case and its arguments of `miras.scan`; None where it is illegal."""
    rule = _rule(case[:-2])
    if rule is None:
        return None
    form, tokens = (axes()[axis][place] for axis, place in zip(("form", "tokens"), case[-2:]))
    options = {"refine": 0, "exact": False, **FORMS[form]}
    if not all(legal for legal, *_ in legality.of_semantics(rule, **options)):
        return None
    return rule, {**FORMS[form], **TOKENS[tokens]}


def name(case: Case) -> str:
    """A case as a reader would call it."""
    told = []
    for options, place in zip(axes().values(), case):
        option = options[place]
        if isinstance(option, dict):
            option = "_".join(_word(key, value) for key, value in option.items())
        told.append(option)
    return "-".join(told)


def _word(key: str, value: Any) -> str:
    value = value["kind"] if isinstance(value, dict) else value
    return str(value) if key == "kind" or isinstance(value, str) else f"{key}{value}"


Pair = tuple[tuple[int, Any], ...]  # what stands on each of two axes


def _label(axis: int, place: int) -> Any:
    """What pairs are counted by: members by their kind, other axes by their options."""
    option = list(axes().values())[axis][place]
    return option["kind"] if isinstance(option, dict) else option


def labels(case: Case) -> list[tuple[int, Any]]:
    """The member or other option that a case has on each axis."""
    return [(axis, _label(axis, place)) for axis, place in enumerate(case)]


def pairs(case: Case) -> set[Pair]:
    """What a case puts together: members and other options by twos, and each option alone."""
    return set(itertools.combinations(labels(case), 2)) | {(one,) for one in enumerate(case)}


def _near(start: Case, axis: int, place: int) -> Case:
    """A legal case with an option: `start` with it and as few other changes as it takes."""
    sizes = [len(options) for options in axes().values()]
    others = [i for i in range(len(sizes)) if i != axis]
    for count in range(4):
        for changed in itertools.combinations(others, count):
            for places in itertools.product(*(range(sizes[i]) for i in changed)):
                case = list(start)
                for i, new in zip((axis, *changed), (place, *places)):
                    case[i] = new
                if build(tuple(case)):
                    return tuple(case)
    raise AssertionError(f"no legal rule holds {list(axes().values())[axis][place]}")


def _crossed(one: Case, other: Case, axes_kept: tuple[int, int]) -> Case | None:
    """A legal case with an option of each of two cases, each other axis as in one of the two."""
    kept = {axes_kept[0]: one, axes_kept[1]: other}
    choices = [
        (kept[i][i],) if i in kept else sorted({a, b}) for i, (a, b) in enumerate(zip(one, other))
    ]
    return next((case for case in itertools.product(*choices) if build(case)), None)


@functools.cache
def each_option() -> tuple[Case, ...]:
    """For each option of each axis a legal case, near the first options of all axes."""
    start = tuple(_first(axis) for axis in axes())
    sizes = [len(options) for options in axes().values()]
    return tuple(_near(start, i, place) for i, size in enumerate(sizes) for place in range(size))


def _first(axis: str) -> int:
    plain = {"memory": "matrix", "bias": "l2", "retention": "none", "algorithm": "gd"}
    options = axes()[axis]
    return options.index({"kind": plain[axis]}) if axis in plain else 0


@functools.cache
def cover() -> tuple[Case, ...]:
    """Legal cases with every two members, and other options, that can stand together.

    Greedily few; every option of a member is in some case, beside as many others as it comes to.
    """
    sizes = [len(options) for options in axes().values()]
    near = dict(zip(((i, p) for i, size in enumerate(sizes) for p in range(size)), each_option()))
    missing: dict[Pair, Case] = {(one,): case for one, case in near.items()}
    for one, other in itertools.combinations(near, 2):
        pair = (one[0], _label(*one)), (other[0], _label(*other))
        if one[0] != other[0] and pair not in missing:
            case = _crossed(near[one], near[other], (one[0], other[0]))
            if case:
                missing[pair] = case
    cases = []
    while missing:
        pair, case = max(missing.items(), key=lambda item: len(item[0]))  # twos before ones
        for axis, size in enumerate(sizes):
            if axis not in dict(pair):
                beside = [(*case[:axis], place, *case[axis + 1 :]) for place in range(size)]
                legal = [new for new in beside if build(new)]
                case = max(legal, key=lambda new: len(pairs(new) & missing.keys()))
        cases.append(case)
        for done in pairs(case):
            missing.pop(done, None)
    return tuple(cases)


def mutate(case: Case, places: list[tuple[int, int]]) -> Case:
    """A legal case beside a legal one: each (axis, place) is taken where it is legal."""
    for axis, place in places:
        new = (*case[:axis], place, *case[axis + 1 :])
        case = new if build(new) else case
    return case
