"""The rules that tests range over, and random inputs for them."""

import functools
import itertools

import miras
from miras.presets import PRESETS
from miras.testing import random_inputs

MEMORIES = {
    "vector": {"kind": "vector"},
    "matrix": {"kind": "matrix"},
    "mlp": {"kind": "mlp", "expansion": 2},
}
MLPS = {
    "one_layer": {"kind": "mlp", "depth": 1},
    "three_layers": {"kind": "mlp", "depth": 3, "expansion": 2},
    "plain": {"kind": "mlp", "residual": False, "norm": None, "expansion": 2},
    "rms": {"kind": "mlp", "norm": "rms", "expansion": 2},
    "affine": {"kind": "mlp", "affine": True, "expansion": 2},
    "bias": {"kind": "mlp", "biases": True, "expansion": 2},
    **{
        f"mlp_{name}": {"kind": "mlp", "activation": name, "expansion": 2}
        for name in ("relu", "gelu", "gelu_exact", "silu", "tanh", "identity")
    },
}
BIASES = {
    "dot": {"kind": "dot"},
    "l2": {"kind": "l2"},
    "lp3": {"kind": "lp", "p": 3.0},
    "lp2.5": {"kind": "lp", "p": 2.5},
    "lp1.5": {"kind": "lp", "p": 1.5},
    "l1": {"kind": "l1"},
    "huber_coordinate": {"kind": "huber", "variant": "coordinate"},
    "huber_norm": {"kind": "huber", "variant": "norm"},
    "huber_mixture": {"kind": "huber", "variant": "mixture"},
    "robust": {"kind": "robust", "radius": 0.3},
}
RETENTIONS = {
    "none": {"kind": "none"},
    "l2": {"kind": "l2"},
    "lq_chunk": {"kind": "lq", "q": 4.0, "link_every": "chunk"},
    "lq_token": {"kind": "lq", "q": 4.0, "link_every": "token"},
    "lq3_token": {"kind": "lq", "q": 3.0, "link_every": "token"},
    "lq_mirror_chunk": {"kind": "lq", "q": 3.0, "form": "mirror", "link_every": "chunk"},
    "lq_mirror_token": {"kind": "lq", "q": 3.0, "form": "mirror", "link_every": "token"},
    "kl_chunk": {"kind": "kl", "scale": 3.0, "axis": 0, "link_every": "chunk"},
    "kl_token": {"kind": "kl", "scale": 2.0, "axis": 1, "link_every": "token"},
}
ALGORITHMS = {"gd": {"kind": "gd"}, "momentum": {"kind": "momentum"}}
ORDERS = ("learn_first", "decay_first")


def legal_rules() -> dict[str, miras.Rule]:
    """Every legal combination of the members above, by a readable name."""
    rules = {}
    axes = (MEMORIES, BIASES, RETENTIONS, ALGORITHMS)
    for names in itertools.product(*axes, ORDERS):
        parts = [axis[name] for axis, name in zip(axes, names)]
        try:
            rules["-".join(names)] = miras.Rule(*parts, order=names[-1])
        except miras.ConfigError:
            continue
    return rules


# W0, q, k, v and gates for a rule.
inputs = functools.partial(random_inputs, B=2, T=11, H=2, dk=4)


# Presets that bring a rule of their own, and not one around which other layers stand.
RULES = tuple(
    name
    for name in PRESETS
    if (miras.preset(name).architecture, miras.preset(name).letters) == ("lmm", "M")
    and miras.preset(name).channel.kind == "swiglu"
)


def labels(name: str) -> set[tuple]:
    """What of a preset its kernels depend on: members, orders, and how a layer calls `scan`."""
    config = miras.preset(name)
    rule = config.rule
    called = {"keys": config.layer.keys, "exact": config.exact}
    return {*rule.kinds().items(), *called.items(), ("order", rule.order), ("read", rule.read)}
