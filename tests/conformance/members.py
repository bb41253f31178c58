"""The rules that `test_members.py` holds against the oracle, and their inputs.

Every registered member of every axis stands here with its options; a member that does not fails
`test_every_member_has_a_case`.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

import miras
from miras.testing import random_inputs
from tests.conformance.parts import (
    ALGORITHMS,
    AVERAGED,
    BIASES,
    DOT,
    GATED,
    GATED_KEYS,
    HUBER,
    LINEAR_ONLY,
    MATRIX,
    MEMORIES,
    MLP,
    NET,
    PER_CHUNK,
    PLAIN,
    PRECONDITIONED,
    RETENTIONS,
    ROWS,
    VECTOR,
    adaptive,
    compressed,
    l2,
    muon,
    slots,
    taylor,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule and how it is called.

    Attributes:
        rule: the four parts.
        refine, exact: as `miras.scan` takes them.
        terms: R where keys have an axis of terms.
        k_write: whether a second key is given to write along.
        lr: range of eta_t.
        values: Dv; Dk is 4. Where the memory is a vector or adds its input, 4.
    """

    rule: miras.Rule
    refine: int = 0
    exact: bool = False
    terms: int | None = None
    k_write: bool = False
    lr: tuple[float, float] = (0.01, 0.1)
    values: int = 3


def inputs(case: Case, *, B=1, T=37, H=2, D=4, seed=0) -> dict[str, Any]:
    """W0, streams and gates in float64; decays per value channel reach below a raised floor."""
    spans = {"lr": case.lr, "log_decay_value": (-0.4, 0.0)}
    sizes = {"B": B, "T": T, "H": H, "dk": D, "dv": case.values, "terms": case.terms}
    streams = random_inputs(case.rule, seed=seed, spans=spans, **sizes)._asdict()
    if case.k_write:
        rng = np.random.default_rng(seed + 1)
        streams["k_write"] = rng.normal(size=streams["k"].shape)
    return streams


def case(
    memory: Any = MATRIX, bias: Any = "l2", retention: Any = "l2", algorithm: Any = "gd", **more
) -> Case:
    """A case by its parts; order and read are the rule's, the rest the case's."""
    own = {name: more.pop(name) for name in ("order", "read") if name in more}
    rule = miras.Rule(memory, bias, retention, algorithm, **own)
    adds_input = memory["kind"] == "vector" or getattr(rule.memory, "residual", False)
    return Case(rule, values=4 if adds_input else 3, **more)


def _members() -> dict[str, Case]:
    """Each member in turn beside common ones."""
    chosen = {}
    for name, memory in MEMORIES.items():
        chosen[name] = case(memory, HUBER, "l2", "momentum", lr=(0.005, 0.05))
    for name, bias in BIASES.items():
        chosen[f"bias-{name}"] = case(MATRIX, bias)
    chosen["bias-gated_l2"] = case(MATRIX, GATED_KEYS)
    for name, retention in RETENTIONS.items():
        chosen[f"retention-{name}"] = case(MATRIX, "l2", retention, lr=(0.005, 0.05))
    for name, algorithm in (ALGORITHMS | LINEAR_ONLY).items():
        chosen[f"algorithm-{name}"] = case(MATRIX, "l2", "l2", algorithm)
    for name, algorithm in PER_CHUNK.items():
        memory = MATRIX if "rms" in name else GATED
        chosen[name] = case(memory, "dot", "l2", algorithm, read="snapshot")
    return chosen


def _elsewhere() -> dict[str, Case]:
    """Members on other memories, where they treat several weights or a vector.

    Rates are small: these memories amplify rounding by a factor a token, the more the larger eta.
    """
    chosen = {}
    for name in ("lq_chunk", "kl_chunk", "kl_coupled_token", "net_hard_chunk", "rows_chunk"):
        chosen[f"mlp-{name}"] = case(PLAIN, HUBER, RETENTIONS[name], "momentum", lr=(0.002, 0.02))
    for name in ("key", "value", "key_value", "lq_key_value", "projection_key"):
        chosen[f"mlp-{name}"] = case(PLAIN, "l2", RETENTIONS[name], "momentum", lr=(0.002, 0.02))
    for name in ("key", "lq_token", "f_kl_0", "rows_token", "projection_token", "net_smooth_token"):
        chosen[f"vector-{name}"] = case(VECTOR, "l2", RETENTIONS[name])
    for name in ("nesterov", "multi_step", "omega", "omega_momentum", "muon", "sign", "rms_plain"):
        algorithm = ALGORITHMS[name]
        bias = HUBER if algorithm.get("window", 1) > 1 else "l2"  # thresholds in the window
        chosen[f"mlp-{name}"] = case(MLP, bias, "l2", algorithm, lr=(0.0002, 0.002))
    dgd = {
        "mlp-dgd": (MLP | {"biases": True}, "l2", "l2", ALGORITHMS["dgd_proximal"]),
        "gated-dgd": (GATED, HUBER, "none", ALGORITHMS["dgd_projection"]),
        "slots-dgd": (slots("gradient"), "l2", l2("key"), "dgd"),
        "features-dgd": (taylor(), "l2", "l2", "dgd"),
        "mlp_key_value-dgd": (PLAIN, "l2", l2("key_value"), "dgd"),
    }
    chosen |= {name: case(*parts, lr=(0.02, 0.2)) for name, parts in dgd.items()}
    chosen["dgd-decay_first"] = case(MATRIX, "l2", l2("key_value"), "dgd", order="decay_first")
    chosen["dgd-snapshot"] = case(MLP, "l2", "l2", "dgd", read="snapshot")
    chosen["refine2-dgd"] = case(PLAIN, "l2", "l2", "dgd", refine=2, lr=(0.02, 0.2))
    chosen["mlp-mixture"] = case(MLP, BIASES["huber_mixture"])
    chosen["mlp-lp"] = case(PLAIN, BIASES["lp2.5"])
    return chosen


def _combined() -> dict[str, Case]:
    """What more than one part has a say in."""
    lact = case(GATED, DOT, ROWS | {"link_every": "chunk"}, PER_CHUNK["muon_sum"], read="snapshot")
    chosen = {
        "lact": lact,
        "net-muon": case(
            MATRIX, "l2", NET | {"link_every": "chunk"}, muon("chunk"), read="snapshot"
        ),
        "net-momentum": case(MATRIX, "l2", NET, "momentum"),
        "net-omega": case(MATRIX, "l2", NET, ALGORITHMS["omega_momentum"]),
        "lq-omega": case(
            PLAIN, "l2", RETENTIONS["lq_token"], ALGORITHMS["omega"], lr=(0.002, 0.02)
        ),
        "kl-muon": case(PLAIN, "l2", RETENTIONS["kl_chunk"], muon(), lr=(0.002, 0.02)),
        "kl_coupled-omega": case(MATRIX, "l2", RETENTIONS["kl_coupled_chunk"], ALGORITHMS["omega"]),
        "vector-muon": case(VECTOR, "l2", "l2", muon()),
        "vector-nesterov": case(VECTOR, "l2", l2("key"), "nesterov"),
        "averaged": case(MATRIX, HUBER, "none", AVERAGED),
        "averaged-mlp": case(PLAIN | {"biases": True}, "l2", "none", AVERAGED),
        "averaged-slots": case(slots("gate"), DOT, "none", AVERAGED),
        "averaged-multi_step": case(
            MATRIX, "l2", "none", AVERAGED | {"kind": "multi_step", "steps": 2}
        ),
        "bias-key_value": case(MLP | {"biases": True}, "l2", l2("key_value"), lr=(0.002, 0.02)),
        "key_value-momentum": case(MATRIX, "l2", l2("key_value"), "momentum"),
        "key-lr_value": case(MATRIX, "l2", l2("key"), LINEAR_ONLY["gd_value"], order="decay_first"),
        "discretised-momentum": case(MATRIX, "l2", l2(discretised=True), "momentum"),
        "trapezoidal-momentum": case(
            MATRIX, HUBER, {"kind": "trapezoidal", "discretised": True}, "momentum"
        ),
        "trapezoidal-features": case(taylor(), "l2", "trapezoidal", "nesterov"),
        "trapezoidal-gated_l2": case(MATRIX, GATED_KEYS, "trapezoidal", LINEAR_ONLY["gd_value"]),
        "trapezoidal-mlp": case(PLAIN, HUBER, "trapezoidal", "gd", lr=(0.002, 0.02)),
        "tied": case(MATRIX, DOT, l2("key", tied=True, min_log_decay=-0.2)),
        "abc": case(slots("gate"), DOT, "none"),
        "abc-key": case(slots("gate"), DOT, l2("key"), "momentum"),
        "gsa-gate": case(slots("gate"), DOT, l2("slot")),
        "gsa": case(slots("tied"), DOT, l2("slot", min_log_decay=-0.2)),
        "compressed-slot": case(compressed(), "l2", l2("slot"), lr=(0.005, 0.05)),
        "compressed-channels": case(compressed(), HUBER, l2("key_value"), "momentum"),
        "compressed-omega": case(compressed(), HUBER, "l2", ALGORITHMS["omega"]),
        "compressed-multi_step": case(compressed(), "l2", "l2", "multi_step", lr=(0.005, 0.05)),
        "compressed-decay_first": case(compressed(), "l2", l2("key"), order="decay_first"),
        "compressed-muon": case(compressed(), "l2", "l2", muon(), lr=(0.002, 0.02)),
        "slots-slot": case(slots("gradient"), "l2", l2("slot"), "momentum"),
        "features-implicit": case(taylor(), "l2", "l2", "implicit"),
        "features-newton": case(taylor(degree=1), "l2", "none", LINEAR_ONLY["newton_exact"]),
        "features-key": case(MEMORIES["elu"], "l2", l2("key_value")),
        "features-value": case(taylor(), "l2", l2("value")),
        "gated_l2-momentum": case(MATRIX, GATED_KEYS, "l2", "momentum"),
        "gated_l2-preconditioned": case(MATRIX, GATED_KEYS, l2("key"), PRECONDITIONED),
        "preconditioned-k_write": case(MATRIX, HUBER, "l2", PRECONDITIONED, k_write=True),
        "features-k_write": case(taylor(), "l2", "l2", k_write=True),
    }  # fmt: skip
    for name, parts in {
        "matrix": (MATRIX, "l2", "l2", "momentum"),
        "mlp": (MLP, HUBER, "l2", "nesterov"),
        "key": (MATRIX, "l2", l2("key")),
        "mlp_key_value": (PLAIN, "l2", l2("key_value")),
        "multi_step": (MATRIX, "l2", "l2", {"kind": "multi_step", "steps": 2}),
    }.items():
        chosen[f"decay_first-{name}"] = case(*parts, order="decay_first", lr=(0.005, 0.05))
    for name in ("none", "lq_chunk", "kl_chunk", "rows_token", "bregman_tanh_token"):
        chosen[f"snapshot-{name}"] = case(
            MATRIX, "l2", RETENTIONS[name], "momentum", read="snapshot"
        )
    return chosen


def _terms() -> dict[str, Case]:
    """Several associations a token, and keys to write along."""
    parts = {
        "gd": (MATRIX, "l2", "l2", "gd"),
        "momentum": (MLP, "l2", "l2", "momentum"),
        "lr_key": (MATRIX, "l2", "l2", LINEAR_ONLY["gd_key"]),
        "lr_value": (MATRIX, "l2", l2("key"), LINEAR_ONLY["momentum_value"]),
        "multi_step": (MATRIX, "l2", "l2", ALGORITHMS["multi_step"]),
        "multi_step_mlp": (PLAIN, "l2", "none", ALGORITHMS["multi_step"]),
        "huber": (MATRIX, HUBER, "l2", "gd"),
        "kl": (MATRIX, "l2", RETENTIONS["kl_token"], "gd"),
    }
    chosen = {f"terms-{name}": case(*own, terms=3) for name, own in parts.items()}
    for name in ("gd", "multi_step", "lr_key"):
        own = {"terms": 3, "k_write": True, "order": "decay_first"}
        chosen[f"terms-k_write-{name}"] = case(*parts[name], **own)
    chosen["terms-gated_l2"] = case(MATRIX, GATED_KEYS, "l2", "gd", terms=2)
    chosen["k_write"] = case(MATRIX, HUBER, "l2", "momentum", k_write=True)
    return chosen


def _refined() -> dict[str, Case]:
    """One and two sweeps."""
    parts = {
        "mlp": (MLP, HUBER, "l2", "momentum"),
        "key": (MATRIX, "l2", l2("key"), "gd"),
        "key_value": (MATRIX, "l2", l2("key_value"), "momentum"),
        "lq": (PLAIN, "l2", RETENTIONS["lq_token"], "nesterov"),
        "compressed": (compressed(), "l2", "l2", "momentum"),
        "rows": (MATRIX, "l2", RETENTIONS["rows_token"], "momentum"),
        "net": (MATRIX, "l2", NET, "gd"),
        "multi_step": (MATRIX, "l2", "l2", {"kind": "multi_step", "steps": 2}),
        "muon": (MATRIX, "l2", "l2", muon()),
        "rms": (MATRIX, "l2", "l2", adaptive("rms")),
    }
    chosen = {}
    for (name, own), refine in itertools.product(parts.items(), (1, 2)):
        chosen[f"refine{refine}-{name}"] = case(*own, refine=refine, lr=(0.005, 0.05))
    for name, own in {
        "matrix": (MATRIX, "l2", "l2", "momentum"),
        "key_value": (PLAIN, "l2", l2("key_value"), "gd"),
        "terms": (MATRIX, "l2", "l2", ALGORITHMS["multi_step"]),
    }.items():
        more: dict[str, Any] = {"terms": 3, "k_write": True} if name == "terms" else {}
        chosen[f"refine2-first-{name}"] = case(
            *own, refine=2, order="decay_first", lr=(0.005, 0.05), **more
        )
    return chosen


def _exact() -> dict[str, Case]:
    """Closed forms of the online rule, at rates that leave no doubt of staleness."""
    parts = {
        "deltanet": (MATRIX, "l2", "none", "gd"),
        "dot": (MATRIX, DOT, "l2", "gd"),
        "gated": (MATRIX, "l2", "l2", "gd"),
        "kda": (MATRIX, "l2", l2("key"), "gd"),
        "key_value": (MATRIX, "l2", l2("key_value"), "gd"),
        "lr_key": (MATRIX, "l2", l2("value"), LINEAR_ONLY["gd_key"]),
        "lr_value": (MATRIX, "l2", l2("key"), LINEAR_ONLY["gd_value"]),
        "implicit": (MATRIX, "l2", "l2", "implicit"),
        "implicit_value": (MATRIX, "l2", "none", LINEAR_ONLY["implicit_value"]),
        "momentum": (MATRIX, "l2", "l2", "momentum"),
        "nesterov": (MATRIX, "l2", "l2", "nesterov"),
        "features": (taylor(), "l2", "l2", "momentum"),
    }
    orders = ("learn_first", "decay_first")
    chosen = {
        f"exact-{name}-{order}": case(*own, exact=True, order=order, lr=(0.1, 0.7))
        for (name, own), order in itertools.product(parts.items(), orders)
        if order == "learn_first" or own[2] != "none"
    }
    product: Any = (MATRIX, "l2", "l2", {"kind": "multi_step", "steps": 2})
    both = {"exact": True, "lr": (0.1, 0.7), "terms": 2}
    chosen["exact-gated_l2"] = case(
        MATRIX, GATED_KEYS, l2("key"), "gd", exact=True, order="decay_first", lr=(0.1, 0.7)
    )
    chosen["exact-trapezoidal"] = case(
        MATRIX, "l2", "trapezoidal", "gd", exact=True, order="decay_first", lr=(0.1, 0.4)
    )
    chosen["exact-preconditioned"] = case(
        MATRIX, "l2", l2("key"), PRECONDITIONED, exact=True, order="decay_first", lr=(0.1, 0.7)
    )
    chosen["exact-multi_step"] = case(*product, exact=True, lr=(0.1, 0.7))
    chosen["exact-deltaproduct"] = case(*product, **both, order="decay_first")
    chosen["exact-rwkv7"] = case(MATRIX, "l2", l2("key"), "gd", **both, k_write=True)
    chosen["exact-k_write"] = case(
        MATRIX, "l2", "l2", "momentum", exact=True, k_write=True, lr=(0.1, 0.4)
    )
    return chosen


MEMBERS, TERMS, REFINED, EXACT = _members(), _terms(), _refined(), _exact()
COMBINED = _elsewhere() | _combined() | TERMS | REFINED | EXACT
CASES = MEMBERS | COMBINED
