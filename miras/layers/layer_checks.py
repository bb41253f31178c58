"""Checks of the options of a layer, which `LayerConfig` makes; it imports them."""

from typing import Any

from miras.config import require
from miras.rule.rule import Rule


def check_sizes(layer: Any) -> None:
    """Ranges of sizes and of what is normalised, and the keys that they are for."""
    for name in ("key_width", "value_width", "key_heads"):
        value = getattr(layer, name)
        require(
            value is None or value >= 1,
            f"layer.{name}={value} must be at least 1, or none for that of the heads.",
        )
        require(
            value is None or (layer.keys == "plain" and layer.mimo == 1),
            f"layer.{name}={value} sizes one key and one value a token, not those of "
            f"layer.keys={layer.keys!r} with layer.mimo={layer.mimo}: use layer.keys='plain' and "
            f"layer.mimo=1, or layer.{name}=none.",
        )
    require(
        0 < layer.rope_share <= 1 and (layer.rope_share == 1 or layer.rope_angles == "position"),
        f"layer.rope_share={layer.rope_share} must lie in (0, 1], and be 1 unless "
        "layer.rope_angles='position'.",
    )
    for name in ("decay_power", "output_eps", "qk_norm_eps"):
        value = getattr(layer, name)
        require(value > 0, f"layer.{name}={value} must be positive.")
    plain = (layer.output_order, layer.output_norm_over) == ("norm_first", "head")
    plain = plain and layer.output_gate_by == "silu"
    require(
        plain or layer.mimo == 1,
        f"layer.mimo={layer.mimo} gates and normalises the reads of a token together: use "
        "layer.output_order='norm_first', layer.output_norm_over='head' and "
        "layer.output_gate_by='silu', or layer.mimo=1.",
    )
    require(
        layer.output_order == "norm_first" or (layer.output_norm and layer.output_gate),
        "layer.output_order='gate_first' says where the norm is beside the gate: set "
        "layer.output_norm=true and layer.output_gate=true, or layer.output_order='norm_first'.",
    )


def check_decays(layer: Any, rule: Rule) -> None:
    """What multiplies decays, starts memories and groups heads needs a rule that has these."""
    kinds = rule.kinds()
    decays = rule.gates_of("decay")
    learned = [gate for gate in decays if gate.learned]
    require(
        layer.gates != "scaled" or bool(learned),
        "layer.gates='scaled' multiplies learned decays, of which retention "
        f"{kinds['retention']!r} here has none: use layer.gates='plain', or retention 'l2'.",
    )
    require(
        layer.decay_power == 1 or (bool(learned) and layer.gates != "angle"),
        f"layer.decay_power={layer.decay_power} multiplies learned decays, of which retention "
        f"{kinds['retention']!r} here has none, or layer.gates='angle' makes them: use "
        "layer.decay_power=1, or retention 'l2' with layer.gates='plain' or 'scaled'.",
    )
    require(
        layer.decay_bound is None
        or any(gate.range == "log_unit" and gate.per_token for gate in learned),
        f"layer.decay_bound={layer.decay_bound} bounds decays of a projection, of which retention "
        f"{kinds['retention']!r} here has none: use layer.decay_bound=none, or retention 'l2'.",
    )
    require(
        layer.initial == "learned" or (rule.memory.is_linear and rule.retention.starts_at_zero),
        "layer.initial='zero' starts a memory that reads nothing, which needs a linear memory "
        f"and a retention that starts at 0, not {kinds['memory']!r} with "
        f"{kinds['retention']!r}: use layer.initial='learned'.",
    )
    require(
        layer.key_heads is None or not rule.memory.keeps_tokens,
        f"layer.key_heads={layer.key_heads} groups memories by their keys, and attention has "
        "layer.kv_heads: use that, or layer.key_heads=none.",
    )


def check_kv_heads(where: str, kv_heads: int | None) -> None:
    """The range of `kv_heads`."""
    require(
        kv_heads is None or kv_heads >= 1,
        f"{where}.kv_heads={kv_heads} must be at least 1, or none for as many as of queries.",
    )


def check_streams(layer: Any) -> None:
    """Ranges of how queries, keys, values and gates are made, and the keys that they are for."""
    for name in ("value_rank", "rate_rank", "output_gate_rank"):
        rank = getattr(layer, name)
        require(rank is None or rank >= 1, f"layer.{name}={rank} must be at least 1, or none.")
    require(layer.erase_eps > 0, f"layer.erase_eps={layer.erase_eps} must be positive.")
    require(
        layer.decay_bound is None or layer.decay_bound > 0,
        f"layer.decay_bound={layer.decay_bound} must be positive, or none.",
    )
    one = layer.mimo == 1 and layer.keys != "product"
    for name in ("token_shift", "value_residual", "bonus"):
        require(
            not getattr(layer, name) or one,
            f"layer.{name}=true takes one key and one value a token, of which layer.keys="
            f"{layer.keys!r} with layer.mimo={layer.mimo} has several: use other keys and "
            f"layer.mimo=1, or layer.{name}=false.",
        )
    require(
        layer.output_norm_kind == "rms" or layer.output_norm_over != "group",
        "layer.output_norm_kind='layer' is of a head, not of the heads of a group: use "
        "layer.output_norm_over='head' or 'shared'.",
    )
    for name, needed in (("output_gate_rank", "output_gate"), ("bonus", "output_norm")):
        require(
            not getattr(layer, name) or getattr(layer, needed),
            f"layer.{name}={getattr(layer, name)} needs layer.{needed}=true.",
        )
    require(
        not layer.bonus or layer.output_order == "norm_first",
        "layer.bonus=true is added after the norm and before the gate: use "
        "layer.output_order='norm_first'.",
    )
