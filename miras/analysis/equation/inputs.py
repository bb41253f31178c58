r"""Inputs: how a layer makes a rule's keys, values and queries, and what becomes of the read."""

from typing import NamedTuple

from miras.analysis.equation.gates import gate, is_one
from miras.analysis.equation.setting import EquationSetting, declares, overrides, told
from miras.analysis.equation.terms import AssociationTerms
from miras.layers.config import LayerConfig
from miras.parts.formula import AssociationFormula, Line, Symbols
from miras.parts.part import Part


def terms_of(setting: EquationSetting, k: str, v: str, rate: str) -> list[AssociationTerms]:
    """The associations of a token."""
    if setting.keys == "product":
        own = _indexed(rate, "t,j") if _learned(setting) else rate
        return [AssociationTerms("k_{t,j}", "k_{t,j}", "v_{t,j}", own)]
    if setting.keys == "rwkv7":
        rates = [_indexed(rate, f"t,{j}") if _learned(setting) else rate for j in (1, 2)]
        return [
            AssociationTerms(r"\kappa_t", r"(a_t \odot \kappa_t)", "", rates[0]),
            AssociationTerms("", r"\tilde{k}_t", v, rates[1]),
        ]
    if setting.keys == "comba":
        return [AssociationTerms("p_t", "k_t", v, rate)]
    return [AssociationTerms(k, k, v, rate)]


class Associated(NamedTuple):
    """The associations that the rule's parts make of one.

    Attributes:
        terms: the token's own first.
        lines: of the symbols in them.
        notes: sentences on parts without a formula.
    """

    terms: tuple[AssociationTerms, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def associated(setting: EquationSetting, term: AssociationTerms, named: Symbols) -> Associated:
    """An association as the rule's parts map it."""
    terms, lines, notes = (term,), (), ()
    for part in setting.rule.associating_parts:
        axis = next(axis for axis in setting.rule.kinds() if getattr(setting.rule, axis) is part)
        if declares(part, axis, "association_formula"):
            of_part = [_mapped(part, term, named) for term in terms]
            terms = tuple(made for found, _ in of_part for made in found)
            lines += tuple(line for _, more in of_part for line in more if line not in lines)
        elif overrides(part, "associate"):
            notes += (f"keys and values are first mapped by `associate` of {axis} {told(part)}.",)
    return Associated(terms, lines, notes)


def _mapped(
    part: Part, term: AssociationTerms, named: Symbols
) -> tuple[list[AssociationTerms], tuple[Line, ...]]:
    """What a part makes of an association, and the lines of its symbols."""
    pair = AssociationFormula(term.read, term.write, term.value)
    own, lines = part.association_formula(pair, named)
    made = (own, *part.further_formula(pair, named))
    return [_scaled(term, each) for each in made], lines


def _scaled(term: AssociationTerms, made: AssociationFormula) -> AssociationTerms:
    """What a part made of a term, at the term's rate times the scale."""
    read, write, value, scale = made
    return AssociationTerms(read, write, value, f"{term.rate} {scale}".strip())


def _projected(setting: EquationSetting) -> str:
    """Names of the streams that are projections of the token."""
    made = () if setting.mixer is None else setting.mixer.makes
    names = [name for name in "qkv" if name not in made and (name != "q" or not setting.is_mac)]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def query(setting: EquationSetting) -> str:
    """LaTeX of the query."""
    return r"\tilde{q}_t" if setting.keys in ("comba", "corrected") else "q_t"


def inputs(setting: EquationSetting) -> tuple[list[Line], list[str]]:
    """The lines of keys that are made of others, and sentences on the rest."""
    layer = setting.layer
    if layer is None:
        return [], []
    lines, many = [], ""
    if layer.keys == "product":
        many = f", with {setting.rule.algorithm.terms} keys and values a token"
    elif layer.mimo > 1:
        many = f", q and k with {layer.mimo} rows a token"
    elif layer.keys == "rwkv7":
        learned = f"xi learned{_eps(layer, 'erase_eps')}"
        lines = [
            Line(r"\kappa_t", r"\frac{k_t \odot \xi}{\|k_t \odot \xi\|_2}", when=learned),
            Line(
                "a_t",
                "(0, 1)",
                r"\in",
                f"per key channel, from the token by rank {layer.rate_rank or layer.gate_rank}",
            ),
            Line(r"\tilde{k}_t", r"k_t \odot (1 + (a_t - 1) \odot m)", when="m learned"),
        ]
    elif layer.keys == "comba":
        lines = [
            Line("p_t", r"\mathrm{sigmoid}(d) \ k_t", when="d learned per head, 1 at the start"),
            Line(r"\tilde{q}_t", "q_t - c p_t", when="c learned per head, 0.02 at the start"),
        ]
    elif layer.keys == "corrected":
        lines = [
            Line(
                r"\tilde{q}_t",
                r"q_t - e^D k_t",
                when="before the normalisation; D learned per head, exp(D) in (0, 1) at the start",
            )
        ]
    token = "z" if setting.is_mac else "x"
    names = _projected(setting)
    made = [f"a projection of {token}{many}"]
    if layer.conv:
        bias = " with a bias" if layer.conv_bias else ""
        made.append(f"a causal convolution over {layer.conv} tokens{bias}")
    if layer.activation is not None:
        made.append("SiLU")
    if layer.kv_heads is not None:
        made.append(f"k and v in {layer.kv_heads} heads, each for as many heads of q as the others")
    if layer.key_heads is not None:
        made.append(f"q and k in {layer.key_heads} heads, each for as many of v as the others")
    for name, width in (("q and k", layer.key_width), ("v", layer.value_width)):
        if width is not None:
            made.append(f"{name} {width} wide per head")
    sentence = f"{names}: {', '.join(made)}"
    if layer.qk_norm == "l2":
        sentence += "; q and k are divided by their l2 norm per head"
    elif layer.qk_norm is not None:
        heads = {"rms_shared": "per head, with one learned scale", "rms_all": "over all heads"}
        over = heads.get(layer.qk_norm, "per head, with a learned scale")
        sentence += f"; q and k are RMS-normalised {over}{_eps(layer, 'qk_norm_eps')}"
    if layer.qk_bias:
        sentence += "; each has a learned bias per head and channel, 1 at the start"
    if layer.rope and layer.rope_angles == "cumulative":
        sentence += (
            "; then pairs of their channels are rotated by angles that begin at 0 in a document "
            "and grow with each token by π tanh(x W) times its rate"
        )
    elif layer.rope:
        part = "" if layer.rope_share == 1 else f", the first {layer.rope_share:g} of the channels"
        sentence += f"; q and k are rotated by position (RoPE, base {layer.rope_base:g}{part})"
    notes = [f"{sentence}."]
    if layer.token_shift:
        notes.append(
            f"{token} is {token}_t + μ ({token}_{{t-1}} - {token}_t), with a μ of its own, learned "
            "per channel, for each of q, k, v, the gates and the output gate."
        )
    if layer.value_residual:
        rank = layer.value_rank or layer.gate_rank
        notes.append(
            "v_t is mixed with that of the model's first layer, v_t + s_t (v¹_t - v_t), s_t in "
            f"(0, 1) per channel, from the token by rank {rank}."
        )
    after = []
    if layer.mimo > 1:
        notes.append(
            "v_t: row r is v times u_r, which is learned per head and channel, 1 / "
            f"{layer.mimo} at the start; products of k_t and v_t sum over rows."
        )
    if layer.skip:
        after.append("plus D v_t, D learned per head, 1 at the start")
    over = {"head": "per head", "shared": "per head, one scale for all", "group": "per group"}
    kind = {"rms": "RMSNorm", "layer": "LayerNorm"}[layer.output_norm_kind]
    told = f"{kind} {over[layer.output_norm_over]}{_eps(layer, 'output_eps')}"
    if layer.bonus:
        told += ", plus sum_i u_i q_i k_i times v_t, u learned per head and channel, 0 at the start"
    norm = [told] if layer.output_norm else []
    times = [f"times {_gate(layer)}"] if layer.output_gate else []
    after += times + norm if layer.output_order == "gate_first" else norm + times
    if layer.mimo > 1:
        z = ", z_r and o_r" if layer.output_gate else " and o_r"
        after.append(f"summed over rows r times o_r (u_r{z} learned per head and channel)")
    if not setting.is_mac:  # which gates by itself
        notes.append(f"y: {', '.join([*after, 'a projection'])}.")
    factor = "e^A" if layer.gates == "scaled" else ""
    if layer.decay_power != 1:
        factor = f"{layer.decay_power:g} {factor}".strip()
    if factor:
        told = ", A learned per head, 0 at the start" if layer.gates == "scaled" else ""
        notes.append(f"gates: log alpha_t is {factor} times the log of a projected decay{told}.")
    if layer.decay_bound is not None:
        notes.append(
            f"gates: log alpha_t is {-layer.decay_bound:g} times the sigmoid of a projection."
        )
    if layer.gate_activation is not None:
        notes.append("gates: projections per channel have a tanh between their two factors.")
    if not layer.rate_bias and _learned(setting):
        notes.append("gates: the projection of the rate has no bias.")
    if layer.initial == "zero":
        notes.append("W_0 is 0, and not learned.")
    if layer.gates == "angle":
        notes.append(
            "gates: with cos^2 = 1 / (1 + (e^f eta_t)^2), f learned per head, alpha_t is cos^2 "
            "times a projected decay and beta_t is 1 - cos^2 times a projected rate, whose "
            "starts are those above; mu_t is at least e^-2."
        )
    if layer.lr_by_position:
        notes.append(
            "eta_t is divided by 1 + the token's position in its chunk, with a learned correction."
        )
    return lines, notes


def _gate(layer: LayerConfig) -> str:
    """What the output is multiplied by."""
    by = {"silu": "SiLU", "sigmoid": "sigmoid", "none": ""}[layer.output_gate_by]
    inner = f"{'z_r ' if layer.mimo > 1 else ''}x W_g"
    if layer.output_gate_rank is not None:
        inner = f"sigmoid(x A_g) B_g, of rank {layer.output_gate_rank}"
    return f"{by}({inner})"


def _eps(layer: LayerConfig, name: str) -> str:
    """What is added to a mean square, if it is not the default."""
    eps = getattr(layer, name)
    return "" if eps == getattr(LayerConfig(), name) else f" (eps {eps:g})"


def _learned(setting: EquationSetting) -> bool:
    lr = gate(setting.rule, "rate")
    return lr is not None and not is_one(lr) and lr.learned


def _indexed(rate: str, index: str) -> str:
    return rate.replace("_t", f"_{{{index}}}")
