"""Part: what the four axes have in common: gates, conditions, sources."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from miras.array_typing import Array
from miras.config import Config
from miras.parts.association import Association, Buffers
from miras.parts.formula import AssociationFormula, Line, Symbols
from miras.parts.gate import Gate


class Condition(NamedTuple):
    """One condition on a rule, or on a call of `miras.scan` with it.

    Attributes:
        legal: whether it holds.
        why: what was asked, and why it is invalid.
        instead: what to take instead.
    """

    legal: bool
    why: str
    instead: str

    @property
    def reason(self) -> str:
        """Both in a sentence."""
        return f"{self.why}: {self.instead}."


class RuleView(Protocol):
    """What a part sees of the rule that it belongs to; see `miras.Rule`."""

    @property
    def memory(self) -> Any:
        """The memory."""
        ...

    @property
    def bias(self) -> Any:
        """The attentional bias."""
        ...

    @property
    def retention(self) -> Any:
        """The retention gate."""
        ...

    @property
    def algorithm(self) -> Any:
        """The memory algorithm."""
        ...

    @property
    def order(self) -> str:
        """Which comes first: "learn_first" or "decay_first"."""
        ...

    @property
    def read(self) -> str:
        """What queries see: "token" or "snapshot"."""
        ...


@dataclasses.dataclass(frozen=True)
class Part(Config):
    """Base of memories, biases, retention gates and algorithms.

    A part declares its gates and is given the values of those gates, by name, wherever it is
    called: in values, gradients, the reference and kernels. It describes itself by class attributes
    and properties of its axis's base class, and states in `conditions` what it needs of the other
    parts. The engine, the backends and the layers know no part by its class or name.

    Attributes:
        kind: the name under which the class is registered.
        separable: whether column j of every weight and buffer, and entry j of every answer and
            residual, depends on entry j of the values alone. False is always safe.
        reach: the field to raise where writes cannot move answers far enough at any rate; None
            where no field bounds them.
        association_count: how many associations `associate` makes of one. Of R it makes a multiple
            of R: first one of each, in their order, then a second of each, and so on.
        carried_by_term: names of buffers that hold one value for each of a token's associations, of
            the shape that `carries` says, with an axis of R before it where tokens have R.
    """

    kind: ClassVar[str]
    separable: ClassVar[bool] = False
    association_count: ClassVar[int] = 1
    carried_by_term: ClassVar[tuple[str, ...]] = ()
    reach: ClassVar[str | None] = None

    @property
    def one_association(self) -> bool:
        """Whether `associate` takes one association a token only."""
        return False

    def carries(self, dk: int, dv: int) -> dict[str, tuple[int, ...]]:
        """The buffers that `associate` carries from token to token: the shape of each, by name.

        A name belongs to one part of a rule.

        Args:
            dk: width of keys.
            dv: width of values.
        """
        del dk, dv
        return {}

    def associate(
        self, tokens: Association, gates: Mapping[str, Array], buffers: Buffers
    ) -> Association:
        """What C tokens write, made of their own keys and values, of gates and of buffers.

        The parts of a rule map one after another: retention, memory, bias, algorithm. A part that
        gives keys to write along calls `_writes_along` in its `conditions`.

        Args:
            tokens: what they write as far as the parts before have it.
            gates: of the whole rule by name, [C] or [C, D], as the retention's `effective` has
                them.
            buffers: those that `carries` declares.
        """
        del gates, buffers
        return tokens

    def gates(self) -> tuple[Gate, ...]:
        """The gates that the part is given at each token."""
        return ()

    def own_gates(self, gates: Mapping[str, Any]) -> dict[str, Any]:
        """The part's own among the gates of a rule, by name."""
        return {gate.name: gates[gate.name] for gate in self.gates()}

    def conditions(self, rule: RuleView) -> Iterator[Condition]:
        """What the part needs of the other parts, of the order and of the read.

        `Rule` raises `ConfigError` for the first one that does not hold. Members extend those of
        their base class.
        """
        for gate in self.gates():
            if gate.side == "slot":
                yield Condition(
                    rule.memory.slots is not None,
                    f"{self.kind}'s gate {gate.name!r} has a value for each slot, but memory "
                    f"{rule.memory.kind!r} has no slots",
                    "use granularity='head', or memory 'slots'",
                )

    def association_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, tuple[Line, ...]]:
        """What `miras.equations` writes of `associate`, and the lines that define its symbols.

        Args:
            tokens: what a token writes as far as the parts before have it.
            gates: LaTeX of the gates' symbols, by name.
        """
        del gates
        return tokens, ()

    def further_formula(
        self, tokens: AssociationFormula, gates: Symbols
    ) -> tuple[AssociationFormula, ...]:
        """The associations that `associate` makes beside that of `association_formula`.

        Args:
            tokens: as there.
            gates: as there.
        """
        del tokens, gates
        return ()

    def _writes_along(self, rule: RuleView) -> Condition:
        """What a key of its own to write along needs."""
        what = (
            f"{self.kind!r} writes along a key other than the one at which errors are read, which"
        )
        return writes_along(rule, what)

    def sources(self) -> tuple[str, ...]:
        """Papers of the formula, each with its equation, table or section."""
        return ()


def writes_along(rule: RuleView, what: str) -> Condition:
    """What a key to write along needs that is not the key at which errors are read.

    Args:
        rule: the rule.
        what: has such a key: the subject of the sentence.
    """
    memory, algorithm = rule.memory, rule.algorithm
    return Condition(
        memory.is_linear and algorithm.window == 1 and algorithm.takes_terms,
        f"{what} needs a linear memory, whose gradient is an outer product with the key, and an "
        f"algorithm without windows, not {memory.kind!r} with {algorithm.kind!r}",
        "use memory 'matrix' with gd, momentum, nesterov or multi_step",
    )
