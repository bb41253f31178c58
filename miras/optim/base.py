"""The contract of a memory algorithm: how the memory descends on its attentional bias.

This is the *inner* algorithm, which runs while the model reads. The optimiser that trains the
model's own parameters is optax and lives in `miras.train`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from miras.array_typing import Array, Leaf
from miras.config import added, own, require
from miras.config.registry import Registry
from miras.optim.coefficients import Coefficients
from miras.optim.old_signatures import adapt_to_gates
from miras.parts.formula import AlgorithmFormula, Line, Symbols
from miras.parts.gate import Gate
from miras.parts.part import Condition, Part, RuleView


class LeastSquares(NamedTuple):
    """How an algorithm solves for the minimiser over the whole history instead of stepping there.

    Attributes:
        ridge: of the regulariser, > 0.
        solver: "cg", conjugate gradient on all tokens of a chunk at once, or "exact".
        iterations: of "cg".
    """

    ridge: float
    solver: Literal["cg", "exact"]
    iterations: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(Part):
    """Memory algorithm: from a token's gradient to the step U_t added to the dual state.

        G_t = sum_i weight_i g_i    over the last `window` tokens; g_t alone for a window of 1
        (S_t, V_t), U_t             by `step`, from the buffers before it and G_t
        A_t = alpha_t A_{t-1} + U_t

    To add one: subclass with frozen fields and implement `step`, one token of the recursion. If
    U_t is linear in the gradients, implement `coefficients` too, its form for a whole chunk, else
    set `linear` to False: then weights are formed for each token. Both are given the gates that
    `gates` declares, by name. Decorate with `@miras.optim.register("kind")`. `formula` and
    `sources` write it for `miras describe`. `miras.testing.check_algorithm` checks the whole.

    Attributes:
        lr: eta where it is not given per token, and where a learned one starts.
        max_lr: end of a learned rate's range (0, max_lr).
        rate_range: "bounded": a learned rate is max_lr times a sigmoid. "positive": it is a
            softplus and has no upper end (Mamba, 2312.00752).
        data_dependent: whether a layer computes eta_t from the token.
        granularity: what eta_t has a value for: "head", or the "key" channels (rows of the
            gradient) or "value" channels (its columns) of a linear memory.
    """

    registry: ClassVar[Registry["Algorithm"]] = Registry("algorithm", "miras.optim")
    linear: ClassVar[bool] = True  # U_t is linear in the gradients: `coefficients` exist
    local: ClassVar[bool] = False  # U_t is -eta_t g_t alone, so decays per channel factor
    sequential: ClassVar[bool] = False  # a token's terms are steps one after another
    erases: ClassVar[bool] = False  # a token also erases along its input, by `erasing_rate`
    takes_terms: ClassVar[bool] = True  # several rank-one terms a token have a meaning
    window: ClassVar[int] = 1  # tokens whose losses make up one step
    online: ClassVar[bool] = False  # sees every token in full: a chunk is a size of tiles only
    averaged: ClassVar[bool] = False  # W_t is the snapshot plus r_t times the chunk's steps so far
    parametric: ClassVar[bool] = True  # it moves weights; False beside a memory that keeps tokens

    lr: float = own(0.1)
    max_lr: float = own(1.0)
    data_dependent: bool = True
    granularity: Literal["head", "key", "value"] = "head"
    rate_range: Literal["bounded", "positive"] = added("bounded")

    def validate(self) -> None:
        """Check ranges."""
        name = type(self).__name__
        require(self.lr > 0, f"{name}.lr={self.lr} must be positive.")
        require(
            self.lr < self.max_lr or not self.data_dependent or self.rate_range == "positive",
            f"{name}.lr={self.lr} must be below max_lr={self.max_lr} when it is data-dependent.",
        )

    @property
    def keeps(self) -> tuple[str, ...]:
        """The buffers carried from token to token: none, ("S",), or ("S", "V")."""
        return ()

    @property
    def carried(self) -> tuple[str, ...]:
        """The buffers of the state: those that `step` keeps, or S for the sum that is averaged."""
        return ("S",) if self.averaged else self.keeps

    @property
    def restarts(self) -> bool:
        """Whether S counts within a chunk, and begins anew with the next."""
        has_momentum = any(gate.role == "momentum" for gate in self.gates())
        return self.averaged or (self.acts == "chunk" and not has_momentum)

    @property
    def terms(self) -> int:
        """Rank-one terms a token is given where its keys have no axis of their own for them."""
        return 1

    @property
    def acts(self) -> Literal["token", "chunk"]:
        """Whether U_t is added after every token, or once, by `transform`, at a chunk's end."""
        return "token"

    @property
    def lr_at(self) -> Literal["gradient", "update"]:
        """Where eta_t enters: it scales the gradient that buffers see, or the step they give."""
        return "gradient"

    @property
    def least_squares(self) -> LeastSquares | None:
        """How W_t is solved for; None for an algorithm that takes steps."""
        return None

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """Of steps inside a token, of steps once a chunk, and of rates per channel."""
        yield from super().conditions(rule)
        memory, retention = rule.memory, rule.retention
        if self.sequential and self.terms > 1:
            yield Condition(
                retention.linked is None,
                f"algorithm {self.kind!r} takes its own steps inside a token in the linear "
                f"geometry, not in that of {retention.kind!r}",
                "use retention 'none' or 'l2', or algorithm 'gd'",
            )
        if self.acts == "chunk":
            yield Condition(
                rule.read == "snapshot",
                f"algorithm {self.kind!r} with every='chunk' writes at the chunk's end, so reads "
                "inside it see the snapshot",
                "use read='snapshot', or every='token'",
            )
            yield Condition(
                retention.linked is None or (retention.proximal and retention.linked == "chunk"),
                f"algorithm {self.kind!r} with every='chunk' adds its step once a chunk, to a "
                f"state that is linear until then, which that of {retention.kind!r} here is not",
                "use every='token', or a retention that is linear, or proximal with "
                "link_every='chunk'",
            )
        if self.granularity != "head":
            asked = f"{self.kind}.granularity={self.granularity!r} scales"
            yield Condition(
                memory.is_linear and self.granularity in memory.channel_sides,
                f"{asked} rows or columns of a linear memory's gradient, which memory "
                f"{memory.kind!r} has none of",
                "use granularity='head', or memory 'matrix'",
            )
            yield Condition(
                self.lr_at == "gradient" and self.window == 1,
                f"{asked} each token's gradient, but the lr of {self.kind!r} here scales a step or "
                "a window",
                "use granularity='head'",
            )

    def _needs_least_squares(self, rule: RuleView) -> Condition:
        """What a closed form of one step or of all needs."""
        return Condition(
            rule.memory.is_linear and rule.bias.slope == 1,
            f"algorithm {self.kind!r} is a closed form for least squares in a linear memory, not "
            f"for {rule.memory.kind!r} with {rule.bias.kind!r}",
            "use memory 'matrix' with bias 'l2', or algorithm 'gd'",
        )

    def __init_subclass__(cls, **keywords: Any):
        super().__init_subclass__(**keywords)
        adapt_to_gates(cls)

    def gates(self) -> tuple[Gate, ...]:
        """eta_t."""
        return (
            Gate(
                "lr",
                self.lr,
                self.rate_range,
                self.data_dependent,
                upper=self.max_lr if self.rate_range == "bounded" else math.inf,
                side=self.granularity,
                role="rate",
                symbol=r"\eta",
            ),
        )

    def effective(self, gates: dict[str, Array], k: Array) -> dict[str, Array]:
        """The gates as the recursion uses them; k is a token's key(s) [..., dk]."""
        del k
        return gates

    def step_rate(self, gates: Mapping[str, Array]) -> Array | float:
        """eta_t among the algorithm's own gates where it scales the step; 1 elsewhere."""
        if self.lr_at == "gradient":
            return 1.0
        (rate,) = (gate for gate in self.gates() if gate.role == "rate")
        return gates[rate.name]

    def erasing_rate(self, gates: Mapping[str, Array]) -> Array:
        """rho_t, [C], of an algorithm that `erases`: in [0, 1] where weights are not to grow.

        Each matrix that a token reads at the input x_t is multiplied by
        I - rho_t / max(1, |x_t|^2) x_t^T x_t, beside its decay, token by token.
        """
        raise NotImplementedError

    def coefficients(
        self,
        log_decay: Array | None,
        gates: Mapping[str, Array],
        write: Array,
        band: Array | None,
    ) -> Coefficients:
        """The chunk form.

        Args:
            log_decay: [C], None where nothing decays.
            gates: the algorithm's own gates by name, [C], or [C, D] per channel; logs are 0 where
                a token is masked.
            write: [C], 1 or 0.
            band: [C, K], the weight of gradient s in G_t; None for a window of 1, where K = C.
        """
        raise NotImplementedError

    def step(
        self, S: Any, V: Any, G: Leaf, gates: Mapping[str, Array]
    ) -> tuple[Leaf | None, Leaf | None, Leaf]:
        """One token of the recursion: S_t, V_t and U_t, for one weight.

        Args:
            S: first buffer, an array like the weight; None if not kept.
            V: second buffer, likewise.
            G: the gradient, times eta_t where `lr_at` is "gradient".
            gates: the token's, of the algorithm's own, by name: scalars, or [D] per channel.
        """
        raise NotImplementedError

    def accumulate(self, S: Leaf, G: Leaf, gates: Mapping[str, Array]) -> Leaf:
        """S_t of an algorithm that acts per chunk; arguments as those of `step`."""
        raise NotImplementedError

    def transform(
        self, S: Leaf, V: Leaf | None, gates: Mapping[str, Array]
    ) -> tuple[Leaf, Leaf | None]:
        """U of an algorithm that acts per chunk, and the new V; gates are the last token's."""
        raise NotImplementedError

    def flops(self, shape: tuple[int, ...], chunk: int) -> float:
        """FLOPs of a token's step on one weight of this shape, beside sums of gradients.

        Args:
            shape: [in, out] or [out].
            chunk: tokens of a chunk.
        """
        del shape, chunk
        return 0.0

    def formula(self, gates: Symbols, G: str, rate: str) -> AlgorithmFormula | None:
        r"""What `miras.equations` writes of `step`; None where only the member's name is known.

        Args:
            gates: LaTeX of the gates' symbols, by name.
            G: LaTeX of what `step` is given for G, such as "\eta_t g_t".
            rate: LaTeX of `step_rate`; "" for 1.
        """
        del gates, G, rate
        return None

    def rate_formula(self, rate: str, k: str) -> tuple[str, tuple[Line, ...]]:
        """LaTeX of the rate that `effective` makes of a rate and a key, and what defines it."""
        del k
        return rate, ()

    def erasing_formula(self, rate: str, x: str) -> tuple[str, tuple[Line, ...]]:
        """LaTeX of the matrix that an algorithm that `erases` subtracts from the decay.

        Args:
            rate: of the step; "" for 1.
            x: the input of a weight.
        """
        del rate, x
        return "", ()

    def solution(self, keep, rate: str, k: str, v: str) -> tuple[Line, ...]:
        """LaTeX of the whole update of an algorithm that solves for W_t instead of stepping there.

        Args:
            keep: from LaTeX of a weight to that of the weight times the decay.
            rate: of a token's weight in what is solved; "" for 1.
            k: the key as the memory's weights see it.
            v: the value.
        """
        del keep, rate, k, v
        return ()


register = Algorithm.registry.register
