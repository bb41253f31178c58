"""Mixers around a memory: their lines; those of Titans are after `miras.mixers.titans`."""

from miras.analysis.equation.setting import EquationSetting
from miras.parts.formula import Line

_GATE = r"\mathrm{{RMSNorm}}({0}) \odot \mathrm{{sigmoid}}(\mathrm{{RMSNorm}}({1}))"
_PAPER = {"mac": "eq. 21-25", "mag": "eq. 26-28", "mal": "eq. 29-31"}


def architecture(setting: EquationSetting) -> tuple[list[Line], list[str]]:
    """The lines around those of the memory, and sentences on them."""
    attention = setting.attention
    if setting.architecture not in _PAPER or attention is None:
        return [*(setting.mixer.formula() if setting.mixer else ())], []
    learned = f"{attention.persistent} learned tokens p" if attention.persistent else ""
    p = "p, " if learned else ""
    if setting.is_mac:
        window = (
            f"the last {attention.window} tokens" if attention.window < attention.segment else ""
        )
        seen = [learned, f"h and x of {window or 'all tokens'} in the segment up to t"]
        sigma = rf"{attention.segment} \lfloor (t-1)/{attention.segment} \rfloor"
        lines = [
            Line(
                "h_t", r"\mathrm{RMSNorm}(M(W_\sigma, q_t))", when="q made of the layer's input x"
            ),
            Line(
                r"\sigma", sigma, when=f"the last token before the segment of {attention.segment}"
            ),
            Line("z_t", rf"\mathrm{{Attn}}_t([{p}h, x])", when=", ".join(filter(None, seen))),
            Line("o_t", _GATE.format("z_t", "y_t"), when="the layer's output"),
        ]
        return lines, ["The memory's tokens are z: its keys, values and gates are made of them."]
    window = f"the last {attention.window} tokens"
    seen = f"{window}, and {learned}" if learned else window
    if setting.architecture == "mag":
        return [
            Line("z_t", rf"\mathrm{{Attn}}_t([{p}x])", when=seen),
            Line("o_t", _GATE.format("z_t", "y_t"), when="y projected; the layer's output"),
        ], []
    return [Line("o_t", rf"\mathrm{{Attn}}_t([{p}y])", when=f"{seen}; y projected")], []


def beside_sources(setting: EquationSetting) -> list[tuple[str, str]]:
    """The paper of the architecture."""
    if setting.architecture not in _PAPER:
        return [("mixer", source) for source in (setting.mixer.sources() if setting.mixer else ())]
    return [("architecture", f"Titans, arXiv 2501.00663, {_PAPER[setting.architecture]}")]
