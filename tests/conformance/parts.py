"""Every registered member of every axis with its options; `members.py` makes rules of them."""

from tests import rules

MATRIX, VECTOR, MLP = {"kind": "matrix"}, {"kind": "vector"}, {"kind": "mlp", "expansion": 2}
PLAIN = {"kind": "mlp", "residual": False, "norm": None, "expansion": 2}
GATED = {"kind": "gated_mlp", "expansion": 2}
DOT, HUBER = {"kind": "dot"}, {"kind": "huber", "variant": "norm"}


def taylor(**more) -> dict:
    """The Taylor features of degree 2, by default before a matrix."""
    return {"kind": "features", "map": "taylor", "degree": 2} | more


def slots(write: str) -> dict:
    """Three slots, with another scale than 1."""
    return {"kind": "slots", "count": 3, "write": write, "scale": 0.7}


def compressed(**more) -> dict:
    """Three slots that keys and values are fitted to; an eps at which gradients stay moderate."""
    return {"kind": "compressed_slots", "count": 3, "eps": 0.01} | more


MEMORIES = rules.MEMORIES | rules.MLPS | {
    "gated_mlp": GATED,
    "gated_mlp_layer": GATED | {"residual": True, "norm": "layer"},
    "gated_mlp_rms": GATED | {"hidden": 3, "norm": "rms"},
    "slots": slots("gradient"),
    "compressed": compressed(),
    "compressed_linear": compressed(linear_writes=True),
    "compressed_rms": compressed(norm="rms", activation="gelu"),
    "compressed_plain": compressed(norm=None, activation="tanh"),
    "elu": {"kind": "features", "map": "elu"},
    "relu2": {"kind": "features", "map": "relu2"},
    "polynomial": {"kind": "features", "map": "polynomial", "degree": 3},
    "taylor": taylor(degree=3),
    "taylor_mlp": taylor(inner=PLAIN | {"affine": True, "norm": "layer", "hidden": 3}),
    "elu_gated": {"kind": "features", "map": "elu", "inner": GATED},
    "matrix_bias": MATRIX | {"biases": True},
    "mlp_bias": PLAIN | {"biases": True},
}  # fmt: skip
BIASES = rules.BIASES | {
    "lp1.5_sharp": {"kind": "lp", "p": 1.5, "smooth": False},
    "l1_sharp": {"kind": "l1", "smooth": False},
    "robust0": {"kind": "robust", "radius": 0.0},
}


def l2(granularity: str = "head", **more) -> dict:
    """l2 retention; `clamped` reaches below the floor of SPAN's decays."""
    return {"kind": "l2", "granularity": granularity} | more


def _every(**options: dict) -> dict[str, dict]:
    """Each retention with its map after every token and once a chunk."""
    return {
        f"{name}_{every}": part | {"link_every": every}
        for name, part in options.items()
        for every in ("token", "chunk")
    }


NET = {"kind": "elastic_net", "c1": 2.0, "c2": 3.0, "gamma": 0.05}
SIGMOID, TANH = ({"kind": "bregman", "potential": p} for p in ("sigmoid", "tanh"))
MIRROR = {"kind": "lq", "q": 1.5, "form": "mirror", "link_every": "token"}
KL = {"kind": "kl", "scale": 2.0}
ROWS = {"kind": "rows", "axis": 0}
BALL = {"kind": "projection", "radius": 0.9}
RETENTIONS = rules.RETENTIONS | {
    "key": l2("key"),
    "value": l2("value"),
    "key_value": l2("key_value", min_log_decay=-0.2),
    "discretised": l2(discretised=True),
    "trapezoidal": {"kind": "trapezoidal"},
    "lq_mirror1.5": MIRROR,
    "lq_key_value": MIRROR | {"q": 3.0, "granularity": "key_value"},
    "bregman_key": TANH | {"granularity": "key", "link_every": "chunk"},
    **_every(
        kl_coupled=KL | {"coupled": True},
        kl_value=KL | {"granularity": "value", "axis": 1},
        bregman_sigmoid=SIGMOID,
        bregman_tanh=TANH,
        ftrl_hard=NET | {"form": "ftrl"},
        ftrl_smooth=NET | {"form": "ftrl", "threshold": "smooth"},
        net_hard=NET,
        net_smooth=NET | {"threshold": "smooth"},
        projection=BALL,
        rows=ROWS,
        rows_out=ROWS | {"axis": 1},
    ),
    "projection_key": BALL | {"granularity": "key"},
    **{
        f"f_{generator}_{axis}": {
            "kind": "f_divergence", "generator": generator, "axis": axis, "scale": 1.0 + axis
        }
        for generator in ("kl", "chi2", "hellinger")
        for axis in (0, 1)
    },
}  # fmt: skip


def muon(every: str = "token", momentum: float | None = 0.9, **more) -> dict:
    """Muon of three Newton-Schulz steps."""
    return {"kind": "muon", "steps": 3, "every": every, "momentum": momentum} | more


def adaptive(variant: str, every: str = "token", momentum: float | None = 0.9, **more) -> dict:
    """Sign or RMS steps; a large eps, since 1 / sqrt(V) at V = 0 amplifies rounding."""
    own = {"kind": "adaptive", "variant": variant, "every": every, "momentum": momentum}
    return own | {"beta2": 0.9, "eps": 1e-3} | more


ALGORITHMS = rules.ALGORITHMS | {
    "nesterov": {"kind": "nesterov"},
    "two_rate_momentum": {"kind": "two_rate_momentum"},
    "multi_step": {"kind": "multi_step", "steps": 3},
    "dgd": {"kind": "dgd"},
    "dgd_proximal": {"kind": "dgd", "form": "proximal"},
    "dgd_projection": {"kind": "dgd", "form": "projection"},
    "omega": {"kind": "omega", "window": 3},
    "omega_momentum": {"kind": "omega", "window": 20, "momentum": 0.9},
    "omega1": {"kind": "omega", "window": 1, "momentum": 0.9},
    "muon": muon(),
    "muon_window": muon(momentum=None, window=3),
    "muon_gradient": muon(lr_at="gradient"),
    "muon_five": muon(quintics="five") | {"steps": 5},
    "muon_window_gradient": muon(window=3, lr_at="gradient"),
    "sign": adaptive("sign", window=2),
    "sign_smooth": adaptive("sign", momentum=None, sharpness=4.0, lr_at="gradient"),
    "rms": adaptive("rms"),
    "rms_plain": adaptive("rms", momentum=None, window=2),
}
AVERAGED = {"kind": "gd", "averaged": True}
PRECONDITIONED = {"kind": "preconditioned", "bound": 1.7}
GATED_KEYS = {"kind": "gated_l2", "negative_eigenvalues": True}
LINEAR_ONLY = {
    "implicit": {"kind": "implicit"},
    "implicit_value": {"kind": "implicit", "granularity": "value"},
    "implicit_key": {"kind": "implicit", "granularity": "key"},
    "preconditioned": PRECONDITIONED,
    "newton": {"kind": "newton", "ridge": 0.7},
    "newton_exact": {"kind": "newton", "ridge": 0.7, "solver": "exact"},
    **{
        f"{kind}_{side}": {"kind": kind, "granularity": side}
        for kind in ("gd", "momentum", "multi_step")
        for side in ("key", "value")
    },
}
PER_CHUNK = {
    "muon_chunk": muon("chunk"),
    "muon_sum": muon("chunk", None, lr_at="gradient"),
    "muon_chunk_window": muon("chunk", None, window=3),
    "sign_chunk": adaptive("sign", "chunk"),
    "rms_chunk": adaptive("rms", "chunk", None),
    "rms_chunk_momentum": adaptive("rms", "chunk", lr_at="gradient"),
}
