"""What a swap of a part by `override` changes, and what survives it."""

import dataclasses
import itertools

import pytest

import miras
from miras.config.overrides import _assign, _own_fields

AXES = ("memory", "bias", "retention", "algorithm")
YAAD = miras.preset("yaad")


@pytest.mark.parametrize("name", ["yaad", "moneta", "gla", "ttt_mlp", "transformer", "atlas"])
def test_naming_the_kind_that_is_there_changes_nothing(name):
    model = miras.preset(name)
    for axis, kind in model.rule.kinds().items():
        for path in (axis, f"{axis}.kind", f"rule.{axis}", f"rule.{axis}.kind"):
            assert miras.override(model, f"{path}={kind}") == model


def test_fields_of_the_same_meaning_survive():
    rule = miras.override(YAAD, "algorithm=momentum", "algorithm.momentum=0.7").rule
    assert (rule.algorithm.lr, rule.algorithm.max_lr) == (0.1, 1.0)  # of the new kind
    muon = miras.override(rule, "algorithm=muon").algorithm
    assert (muon.momentum, muon.steps) == (0.7, 5)
    assert miras.override(rule, "algorithm=gd", "algorithm=momentum").algorithm.momentum == 0.9
    memory = miras.override(YAAD, "memory=gated_mlp").rule.memory
    assert (memory.expansion, memory.residual, memory.norm, memory.eps) == (4, True, "layer", 0.1)
    retention = miras.override(miras.preset("moneta"), "retention.kind=kl").rule.retention
    assert (retention.decay, retention.link_every, retention.scale) == (0.999, "chunk", 1.0)
    # a value that the new kind does not take, and a name of another meaning
    assert miras.override(miras.preset("moneta"), "retention=f_divergence").rule.retention == (
        miras.retention.FDivergence()
    )
    steps = miras.Rule(algorithm=miras.optim.MultiStep(steps=3))
    assert miras.override(steps, "algorithm=muon").algorithm.steps == 5


def test_a_dict_is_the_whole_part():
    assert miras.override(YAAD, 'algorithm={"kind": "gd"}').rule.algorithm == miras.optim.GD()


@pytest.mark.parametrize("axis", AXES)
def test_any_two_kinds_share_fields_by_name_unless_declared_own(axis):
    registry = type(getattr(YAAD.rule, axis)).registry
    parts = {kind: registry.get(kind)() for kind in registry.names()}
    for old, new in itertools.permutations(parts, 2):
        rule = object.__new__(miras.Rule)  # some pairs need other parts beside them
        for name in AXES:
            object.__setattr__(rule, name, getattr(YAAD.rule, name))
        object.__setattr__(rule, axis, parts[old])
        changed = _swap(rule, axis, new)
        assert changed.kind == new
        for field in dataclasses.fields(changed):
            value = getattr(changed, field.name)
            kept = (getattr(parts[new], field.name), getattr(parts[old], field.name, None))
            assert value in kept, (old, new, field.name)
            if field.name in ("lr", "max_lr"):
                assert value == kept[0]


def test_own_is_inherited_by_a_field_declared_anew():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(miras.optim.Newton):
        lr: float = 0.3

    assert {"lr", "max_lr"} <= set(_own_fields(Mine))


def _swap(rule, axis, kind):
    return getattr(_assign(rule, [axis], kind), axis)
