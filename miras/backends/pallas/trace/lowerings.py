"""A kernel compiler's lowering rules, in one registry keyed by primitives.

A traced step is a jaxpr of jax's primitives. A compiler of kernels lowers some of them as they are
(`native`); others need a rule that states them in terms of those (`register`). What is in neither
set keeps a rule out of kernels, see `support`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn

from miras.backends.pallas.trace.jaxprs import bind
from miras.backends.pallas.trace.primitives import Key

# (equation, its inputs, context) -> its results. In a kernel the context is a function that
# evaluates a jaxpr that the equation holds, see `jaxprs.evaluate`.
LoweringRule = Callable[[JaxprEqn, list[Any], Any], Sequence[Any]]
Supports = Callable[[JaxprEqn], bool]


class Lowering(NamedTuple):
    """How a primitive is lowered.

    Attributes:
        rule: gives an equation's results.
        supports: whether the rule covers an equation of this primitive.
    """

    rule: LoweringRule
    supports: Supports


class Lowerings:
    """Lowering rules by primitive.

    Args:
        target: what the rules are for, in messages, such as "TPU".
        base: registry whose rules apply to primitives that this one has no rule for.
    """

    def __init__(self, target: str, base: "Lowerings | None" = None):
        self.target, self._base = target, base
        self._rules: dict[Key, Lowering] = {}

    def register(
        self, *primitives: Key, supports: Supports = lambda eqn: True
    ) -> Callable[[LoweringRule], LoweringRule]:
        """Decorator of a rule for some primitives.

        Args:
            *primitives: `jax.extend.core.Primitive`s, or names of what jax does not expose.
            supports: whether the rule covers an equation; by default it covers all.

        Raises:
            ValueError: if one of the primitives has a rule already.
        """

        def decorate(rule: LoweringRule) -> LoweringRule:
            for primitive in primitives:
                if primitive in self._rules:
                    raise ValueError(f"{primitive} has a {self.target} lowering already")
                self._rules[primitive] = Lowering(rule, supports)
            return rule

        return decorate

    def native(self, *primitives: Key) -> None:
        """Register primitives that the compiler lowers as they are."""
        self.register(*primitives)(lambda eqn, inputs, context: bind(eqn, inputs))

    def get(self, eqn: JaxprEqn) -> Lowering | None:
        """The lowering of an equation's primitive, whether it covers the equation or not."""
        found = self._rules.get(eqn.primitive) or self._rules.get(eqn.primitive.name)
        if found is None and self._base is not None:
            return self._base.get(eqn)
        return found

    def supports(self, eqn: JaxprEqn) -> bool:
        """Whether the compiler can have this equation."""
        found = self.get(eqn)
        return found is not None and found.supports(eqn)

    def __call__(self, eqn: JaxprEqn, inputs: list[Any], context: Any) -> Sequence[Any]:
        """An equation's results by its rule; as jax computes them where there is none."""
        found = self.get(eqn)
        return bind(eqn, inputs) if found is None else found.rule(eqn, inputs, context)
