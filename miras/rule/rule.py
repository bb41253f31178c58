"""Rule: the four choices and their order, checked to fit together."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from miras.array_typing import Weights
from miras.bias import DEFAULT as BIAS
from miras.bias import Bias
from miras.config import Config, require
from miras.memory import DEFAULT as MEMORY
from miras.memory import Memory
from miras.optim import DEFAULT as ALGORITHM
from miras.optim import Algorithm
from miras.parts.gate import Gate, Role
from miras.parts.part import Part
from miras.retention import DEFAULT as RETENTION
from miras.retention import Retention
from miras.rule import legality


@dataclasses.dataclass(frozen=True)
class Rule(Config):
    """One point of the MIRAS design space (arXiv 2504.13173, section 3).

        g_t = grad_W loss(M(W_r, k_t), v_t)       bias, at the snapshot W_r before the chunk
        U_t = -eta_t g_t, S_t, ...                algorithm, the step
        A_t = alpha_t A_{t-1} + U_t               retention, in the dual space
        W_t = link(A_t)                           retention, mirror map
        y_t = M(W_t, q_t)                         read

    Each part is given as a config object, as a registered name, or as a dict with a `kind`.

    Attributes:
        memory: M; see `miras.memory`.
        bias: the loss; see `miras.bias`.
        retention: alpha and the link; see `miras.retention`.
        algorithm: the inner optimiser; see `miras.optim`.
        order: "learn_first" takes g_t before anything is forgotten (Titans, MIRAS); "decay_first"
            at the decayed state alpha_t W_r (Gated DeltaNet, Mamba-2). They differ where the
            gradient depends on the state and the decay is not 1.
        read: "token" reads W_t, after the token's own write (Titans, TTT, MIRAS, the delta family);
            "snapshot" reads W_r, the memory before the chunk (LaCT's apply-then-update).

    Raises:
        ConfigError: for a combination that is invalid, with the reason.
    """

    memory: Memory = MEMORY
    bias: Bias = BIAS
    retention: Retention = RETENTION
    algorithm: Algorithm = ALGORITHM
    order: Literal["learn_first", "decay_first"] = "learn_first"
    read: Literal["token", "snapshot"] = "token"

    def validate(self) -> None:
        """Raise `ConfigError` for an invalid combination."""
        for condition in legality.of_rule(self):
            require(condition.legal, condition.reason)
        names = [gate.name for gate in self.gates]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(
            twice is None,
            f"gate {twice!r} is declared by two parts of {self.kinds()}: give one of them another "
            "name.",
        )
        names = [name for part in self.associating_parts for name in part.carries(1, 1)]
        twice = next((name for name in names if names.count(name) > 1), None)
        require(
            twice is None,
            f"buffer {twice!r} is carried by two parts of {self.kinds()}: give one of them another "
            "name.",
        )

    def kinds(self) -> dict[str, str]:
        """The registered name of each part."""
        parts = ("memory", "bias", "retention", "algorithm")
        return {part: getattr(self, part).kind for part in parts}

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Every gate that the parts consume."""
        parts = (self.algorithm, self.retention, self.bias, self.memory)
        return tuple(gate for part in parts for gate in part.gates())

    def gates_of(self, role: Role) -> tuple[Gate, ...]:
        """The gates of a role."""
        return tuple(gate for gate in self.gates if gate.role == role)

    @property
    def gradient_gates(self) -> tuple[Gate, ...]:
        """The gates that a token's gradient depends on: those of the bias and of the memory."""
        return (*self.bias.gates(), *self.memory.gates())

    @property
    def associating_parts(self) -> tuple[Part, ...]:
        """The parts in the order in which they map a token's keys and values."""
        return self.retention, self.memory, self.bias, self.algorithm

    @property
    def association_count(self) -> int:
        """How many associations the parts make of one."""
        return math.prod(part.association_count for part in self.associating_parts)

    def carries(self, dk: int, dv: int, terms: int | None = None) -> dict[str, tuple[int, ...]]:
        """The shapes of the buffers that parts carry from token to token, by name.

        Args:
            dk: width of keys.
            dv: width of values.
            terms: R, associations a token, where keys have an axis of them.
        """
        return {
            name: shape if terms is None or name not in part.carried_by_term else (terms, *shape)
            for part in self.associating_parts
            for name, shape in part.carries(dk, dv).items()
        }

    @property
    def rate(self) -> Gate | None:
        """The gate that scales gradients or steps; None for an algorithm without steps."""
        return next(iter(self.gates_of("rate")), None)

    @property
    def reads_linearly(self) -> bool:
        """Whether reads inside a chunk follow a linear recursion other than the dual state's."""
        return self.retention.linked == "chunk" and not self.retention.proximal

    @property
    def forms_weights(self) -> bool:
        """Whether W_t has to be formed for each token, since it is not linear in the gradients."""
        return legality.forms_weights(self)

    def init_raw(self, key: jax.Array, dk: int, dv: int | None = None, heads: int = 1) -> Weights:
        """Initial weights before the retention's constraint, as an outer optimiser trains them."""
        sizes = {"dk": dk, "dv": dk if dv is None else dv, "heads": heads}
        for name, size in sizes.items():
            require(
                isinstance(size, int) and size >= 1,
                f"{name}={size!r} must be a whole number of at least 1.",
            )
        keys = jax.random.split(key, heads)
        raw = jax.vmap(lambda k: self.memory.init(k, dk, sizes["dv"]))(keys)
        if self.retention.starts_at_zero:
            return raw
        keys = dict(zip(raw, jax.random.split(key, len(raw))))
        fixed = self.memory.fixed
        return {n: w if n in fixed else _away_from_zero(keys[n], w) for n, w in raw.items()}

    def constrain(self, raw: Weights) -> Weights:
        """The primal W0 of raw weights, leaves [H, ...]."""
        fixed = self.memory.fixed
        return {
            name: leaf if name in fixed else jax.vmap(self.retention.constrain)(leaf)
            for name, leaf in raw.items()
        }

    def init(self, key: jax.Array, dk: int, dv: int | None = None, heads: int = 1) -> Weights:
        """Initial primal weights W0.

        Args:
            key: PRNG key.
            dk: width of keys and queries.
            dv: width of values; dk if not given.
            heads: H.

        Returns:
            Leaves [H, in, out] or [H, out], float32.

        Raises:
            ConfigError: where the memory does not allow these widths.
        """
        return self.constrain(self.init_raw(key, dk, dv, heads))


def _away_from_zero(key: jax.Array, leaf: jax.Array) -> jax.Array:
    """The leaf [H, in, ...], or one of variance 1 / in where it is all zero."""
    drawn = jax.random.normal(key, leaf.shape, leaf.dtype) * leaf.shape[1] ** -0.5
    return jnp.where(jnp.any(leaf != 0), leaf, drawn)
