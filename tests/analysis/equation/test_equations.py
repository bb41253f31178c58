"""Equations are those of the rule as it is composed: whole, drawable, and different where it is."""

import dataclasses
import re
import typing

import pytest

import miras
from miras.analysis.equation import compose, setting_of, text
from miras.analysis.equation.gates import is_one, symbol, symbols
from miras.config import override
from miras.errors import ConfigError
from miras.layers import LayerConfig
from miras.presets import PRESETS
from miras.testing.rules import rules_with
from tests.analysis.equation.drawn import check_drawn
from tests.conformance.members import CASES
from tests.contract.space import REGISTRIES, VARIANTS, kinds


def semantics(case) -> dict:
    return {"refine": case.refine, "exact": case.exact, "chunk": None if case.exact else 16}


def check_gates(setting, told: str) -> None:
    for latex in symbols(setting).values():
        assert re.search(rf"^  {re.escape(text(latex))} +(∈|=|>)", told, re.M), latex


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_equations_gates_and_sources(name):
    config = miras.preset(name)
    told = miras.equations(config)
    check_gates(setting_of(config, None, 0, False), told)
    assert re.search(r"^  memory +\S", told, re.M)
    check_drawn(miras.equations(config, latex=True))
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.parametrize("name", CASES)
@pytest.mark.sample(0.3)
def test_a_rule_is_drawn_and_names_its_gates(name):
    case = CASES[name]
    check_drawn(miras.equations(case.rule, latex=True, **semantics(case)))
    told = miras.equations(case.rule, **semantics(case))
    setting = setting_of(case.rule, **semantics(case))
    check_gates(setting, told)
    found = compose(setting)
    used = " ".join(text(f"{line.left} {line.right}") for line in (*found.update, *found.where))
    for gate in case.rule.gates:
        known = {text(symbol(gate, index)) for index in ("t", "i")}
        assert is_one(gate) or any(word in used for word in known), (gate.name, used)


AS_THEIR_PAPERS = {
    "linear_attention": ["W_t = W_{t-1} + k_tᵀ v_t", "y_t = q_t W_t"],
    "retnet": ["W_t = α_h W_{t-1} + k_tᵀ v_t", "α_h = 1 - 0.03125 · 0.5^h"],
    "gla": ["W_t = Diag(α_t) W_{t-1} + k_tᵀ v_t"],
    "mamba2": ["W_t = α_t^(η_t) W_{t-1} + η_t k_tᵀ v_t"],
    "hgrn2": ["W_t = Diag(α_t) W_{t-1} + (1 - α_t)ᵀ v_t"],
    "deltanet": [
        "W_t = W_{t-1} - η_t k_tᵀ (k_t W_{t-1} - v_t)",
        "= (I - η_t k_tᵀ k_t) W_{t-1} + η_t k_tᵀ v_t",
    ],
    "gated_deltanet": ["= (I - η_t k_tᵀ k_t) α_t W_{t-1} + η_t k_tᵀ v_t"],
    "kda": ["= (I - η_t k_tᵀ k_t) Diag(α_t) W_{t-1} + η_t k_tᵀ v_t"],
    "rwkv7": ["= (Diag(α_t) - (a_t ⊙ κ_t)ᵀ κ_t) W_{t-1} + k̃_tᵀ v_t"],
    "comba": ["W_t = α_t W_{t-1} - η_t k_tᵀ (p_t W_{t-1} - v_t)", "y_t = q̃_t W_t"],
    "longhorn": [
        "W_t = W_{t-1} - k_tᵀ ((k_t W_{t-1} - v_t) ⊙ ε_t)",
        "ε_t = η_t / (1 + η_t k_t k_tᵀ)",
    ],
    "deltaproduct": [
        "W_{t,0} = α_t W_{t-1}",
        "W_{t,j} = W_{t,j-1} - η_{t,j} k_{t,j}ᵀ (k_{t,j} W_{t,j-1} - v_{t,j}) for j = 1 to 2",
        "W_t = W_{t,2}",
    ],
    "mesa": ["H_t = α_t H_{t-1} + η_t k_tᵀ k_t", "W_t = (H_t + I)⁻¹ G_t"],
    "ttt_mlp": [
        "M(W, x) = x + s ⊙ LN(GELU(x W_1 + b_1) W_2 + b_2) + c",
        "S_t = S_{t-1} - η_t g_t from 0 at a chunk's first token",
        "W_t = W_r + θ_t S_t",
        "θ_t = max(0, 1/(t-r) + o_{t-r})",
    ],
    "titans_lmm": [
        "M(W, x) = x + LN(GELU(x W_1) W_2)",
        "g_t = ∇_W 1/2 ‖M(W_r, k_t) - v_t‖_2²",
        "S_t = μ_t S_{t-1} - η_t g_t",
        "W_t = α_t W_{t-1} + S_t",
        "y_t = M(W_t, q_t)",
        "r = 16 ⌊ (t-1)/16 ⌋",
    ],
    "moneta": ["g_t = ∇_W 1/3 ‖M(W_r, k_t) - v_t‖_3³", "W_t = A_t/‖A_t‖_4²"],
    "yaad": ["e_t = r_t if ‖r_t‖_2 ≤ δ_t, else δ_t sign(r_t)", "W_t = α_t W_{t-1} - η_t g_t"],
    "memora": ["A_t = α_t A_{t-1} - η_t g_t", "32 softmax_{columns}(A_t) at a chunk's first token"],
    "omeganet": ["G_t = Σ_{i=t-3}^t γ_i g_i", "S_t = μ_t S_{t-1} - η_t G_t"],
    "atlas": ["S_t = μ_t S_{t-1} + G_t", "W_t = α_t W_{t-1} - η_t NS_5(S_t)"],
    "lact": ["S_t = S_{t-1} + η_t g_t from 0", "y_t = M(W_r, q_t)"],
    "transformer": ["y_t = Σ_{s=1}^t softmax_s((q_t k_sᵀ) / √d_k) v_s"],
    "titans_mac": ["o_t = RMSNorm(z_t) ⊙ sigmoid(RMSNorm(y_t))", "y_t = M(W_t, z_t)"],
}


@pytest.mark.parametrize("name", AS_THEIR_PAPERS)
def test_known_models_read_as_their_papers(name):
    told = re.sub(" +", " ", miras.equations(miras.preset(name)))
    for line in AS_THEIR_PAPERS[name]:
        assert line in told


# ---- whatever changes the function changes the equation -----------------------------------------

# Members in whose equation a field shows that another member's options hide.
MORE = {
    "memory": {
        "mlp": [{"norm": "layer", "residual": False}],
        "gated_mlp": [{"norm": "rms"}],
        "slots": [{}],
        "kv": [{"window": 2}],
    },
    "bias": {"lp": [{"p": 1.5}], "l1": [{}]},
    "retention": {
        "elastic_net": [{"form": "ftrl"}, {}],
        "lq": [{"granularity": "key"}],
        "projection": [{"granularity": "key"}],
    },
    "algorithm": {
        "newton": [{}],
        "adaptive": [{"variant": "rms"}, {"variant": "sign", "lr_at": "gradient"}],
        "omega": [{"window": 3, "momentum": 0.9}],
    },
}


def instances(axis: str, kind: str):
    specs = VARIANTS[axis].get(kind, [{}]) + MORE[axis].get(kind, [])
    return [REGISTRIES[axis].build({"kind": kind, **spec}) for spec in [{}, *specs]]


def others(member, field):
    """Other values of a field."""
    hint, value = typing.get_type_hints(type(member))[field.name], getattr(member, field.name)
    choices = [a for a in typing.get_args(hint) if a is not type(None)] or [hint]
    found = []
    for choice in choices:
        literal = typing.get_args(choice) or (choice,)
        found += [x for x in literal if not isinstance(x, type)]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [0.7 * value, 1.1 * value, value + 1]
    if float in choices:
        return [0.3]
    if int in choices:
        return [3]
    if isinstance(value, miras.memory.Memory):
        return [miras.memory.MLP()]
    return [x for x in (*found, "sigmoid") if x != value]


def legal_rules(axis: str, member):
    parts = [{}, {"bias": "dot"}, {"bias": "dot", "algorithm": "momentum"}, {"memory": "mlp"}]
    for beside in parts:
        if axis in beside:
            continue
        yield from rules_with(beside, **{axis: member})


@pytest.mark.parametrize(
    ("axis", "kind"),
    # nonparametric has the fields of its base and uses none
    [(axis, k) for axis in REGISTRIES for k in kinds(axis) if k != "nonparametric"],
)
def test_every_field_of_a_part_shows(axis, kind):
    """In some rule with it, as many fields matter only under others."""
    members = instances(axis, kind)
    for field in dataclasses.fields(members[0]):
        found = [
            miras.equations(rule) != miras.equations(other)
            for member in members
            for rule, other in changes(axis, member, field)
        ]
        assert any(found) or not found, f"{kind}.{field.name} is in no equation"


def changes(axis: str, member, field):
    """A legal rule with the member, and the same with another value of the field, if legal."""
    for value in others(member, field):
        try:
            changed = dataclasses.replace(member, **{field.name: value})
        except ConfigError:
            continue
        for rule in legal_rules(axis, member):
            try:
                yield rule, dataclasses.replace(rule, **{axis: changed})
            except ConfigError:
                continue
            break


@pytest.mark.parametrize("field", dataclasses.fields(LayerConfig), ids=lambda f: f.name)
def test_every_field_of_a_layer_shows(field):
    shown = {"rope_base": "transformer", "rope_angles": "mamba3", "qk_norm_eps": "mamba3"}
    shown |= {"rope_share": "transformer", "rate_rank": "rwkv7", "erase_eps": "rwkv7"}
    config = miras.preset(shown.get(field.name, "dfw"))
    if field.name == "value_rank":
        config = override(config, "layer.value_residual=true")
    if shown.get(field.name) not in ("transformer", "rwkv7"):
        config = override(config, "algorithm.data_dependent=true", "lr=0.5")
    if field.name == "decay_by_depth":
        config = override(config, "retention.granularity=head")
    told = miras.equations(config)
    for value in others(config.layer, field):
        try:
            changed = dataclasses.replace(
                config, layer=dataclasses.replace(config.layer, **{field.name: value})
            )
        except ConfigError:
            continue
        assert miras.equations(changed) != told


CHANGES = {
    "order": ("gated_deltanet", "order=learn_first"),
    "read": ("titans_lmm", "read=snapshot"),
    "chunk": ("yaad", "chunk=8"),
    "refine": ("titans_lmm", "refine=2"),
    "exact": ("deltanet", "exact=false"),
    "architecture": ("titans_lmm", "architecture=mag"),
    "segment": ("titans_mac", "attention.segment=32", "attention.window=32"),
    "window": ("titans_mag", "attention.window=32"),
    "persistent": ("titans_mal", "attention.persistent=0"),
    "delta": ("yaad", "bias.delta=0.5"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_function_changes_the_equation(name):
    preset, *changes = CHANGES[name]
    config = miras.preset(preset)
    assert miras.equations(override(config, *changes)) != miras.equations(config)


def test_online_forms_have_no_snapshot():
    rule = miras.preset("titans_lmm").rule
    for chunk, refine in ((1, 0), (4, 4)):
        assert "M(W_{t-1}, k_t)" in miras.equations(rule, chunk=chunk, refine=refine)
    assert "C = 1 is online" in miras.equations(rule)
    assert "2 times over" in miras.equations(rule, chunk=16, refine=2)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.sample(0.4)
def test_no_preset_passes_for_its_changed_rule(name):
    """Another bias, or another rate where the bias cannot change: nothing of the old line stays."""
    config = miras.preset(name)
    for change in ("bias=huber", "bias=l2", "memory.window=9"):
        try:
            changed = override(config, change, "exact=false")
        except ConfigError:
            continue
        if changed.rule == config.rule:
            continue
        old, new = (miras.equations(c.rule, chunk=c.chunk) for c in (config, changed))
        assert old != new
