"""RWKV-7 with all that is around its rule, as overrides of the preset; not tests themselves."""

LAYER = {
    "conv": 0,
    "activation": None,
    "qk_norm": None,
    "token_shift": True,
    "value_residual": True,
    "value_rank": 2,
    "rate_rank": 3,
    "gate_rank": 4,
    "gate_activation": "tanh",
    "decay_bound": 0.6065306597126334,
    "bonus": True,
    "output_norm_kind": "layer",
    "output_gate_by": "none",
    "output_gate_rank": 5,
}
OPTIONS = (
    *(f"layer.{name}={'none' if value is None else value}" for name, value in LAYER.items()),
    "channel=mlp",
    "channel.token_shift=true",
    "norm_kind=layer",
    "embedding_norm=true",
)
