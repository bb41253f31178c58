"""Random inputs for any rule, and the rules that tests range over."""

import itertools

import jax
import numpy as np

import miras
from miras.presets import PRESETS

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


def inputs(rule: miras.Rule, *, B=2, T=11, H=2, D=4, seed=0, dtype=np.float64):
    """W0, q, k, v and gates for a rule, with steps so small that rounding is not amplified."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(B, T, H, D)).astype(dtype) for _ in range(3))
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    span = {
        "lr": (0.002, 0.02),
        "log_decay": (-0.3, 0.0),
        "log_momentum": (-1.0, -0.1),
        "threshold": (0.5, 2.5),
    }
    gates = {g.name: rng.uniform(*span[g.name], size=(B, T, H)).astype(dtype) for g in rule.gates}
    start = rule.init_raw(jax.random.key(seed), D, D, H)
    raw = {n: 0.3 * rng.normal(size=w.shape) + np.asarray(w) for n, w in start.items()}
    W0 = {n: np.asarray(w, dtype) for n, w in rule.constrain(raw).items()}
    return W0, q, k, v, gates


# Presets that bring a rule of their own, and not one around which other layers stand.
RULES = tuple(
    name
    for name in PRESETS
    if (miras.preset(name).architecture, miras.preset(name).letters) == ("lmm", "M")
)


def labels(name: str) -> set[tuple]:
    """What of a preset its kernels depend on: members, orders, and how a layer calls `scan`."""
    config = miras.preset(name)
    rule = config.rule
    called = {"keys": config.layer.keys, "exact": config.exact}
    return {*rule.kinds().items(), *called.items(), ("order", rule.order), ("read", rule.read)}
