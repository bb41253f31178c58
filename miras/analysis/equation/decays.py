"""Decays: the factor on the past that a rule's decay gates make, weight by weight."""

from collections.abc import Iterator

import jax

from miras.analysis.equation.gates import is_one
from miras.analysis.equation.setting import EquationSetting
from miras.errors import ConfigError
from miras.parts.formula import Line, Symbols


class Decays:
    """What the past is multiplied by.

    Args:
        setting: of the rule.
        decay: LaTeX of a factor that the retention computes itself; None where it is its gates.
        named: symbols of the gates.
    """

    def __init__(self, setting: EquationSetting, decay: str | None, named: Symbols):
        self.rule = setting.rule
        gates = [gate for gate in self.rule.retention.gates() if gate.role == "decay"]
        kept = [] if decay is not None else [gate for gate in gates if not is_one(gate)]
        heads = [named[gate.name] for gate in kept if gate.side == "head"]
        self.scalar = decay if decay is not None else " ".join(heads)
        self.sides = {gate.side: named[gate.name] for gate in kept if gate.side != "head"}
        linear = self.rule.memory.is_linear
        self.left = (
            rf"\mathrm{{Diag}}({self.sides['key']})" if linear and "key" in self.sides else ""
        )
        self.right = (
            rf"\mathrm{{Diag}}({self.sides['value']})" if linear and "value" in self.sides else ""
        )

    def __call__(self, W: str) -> str:
        """LaTeX of a weight after its decay."""
        if self.rule.memory.is_linear or not self.sides:
            return " ".join(filter(None, (self.scalar, self.left, W, self.right)))
        return r" \odot ".join((*self.sides.values(), W))

    @property
    def none(self) -> bool:
        """Whether nothing decays."""
        return not self.scalar and not self.sides

    @property
    def identity(self) -> str:
        """LaTeX of the factor as a matrix from the left, where it has no right one."""
        return self.left or (f"{self.scalar} I" if self.scalar else "I")

    def where(self) -> tuple[Line, ...]:
        """Which channels of which weights a decay per channel acts on."""
        memory = self.rule.memory
        if memory.is_linear or not self.sides:
            return ()
        try:
            weights = jax.eval_shape(lambda: memory.init(jax.random.key(0), 8, 8))
        except ConfigError:  # a memory of other widths
            return ()
        fast = [name for name in weights if name not in memory.fixed]
        return tuple(
            Line(symbol, r"\text{, }".join(self._on(side, fast)), r"\text{ acts on }")
            for side, symbol in self.sides.items()
        )

    def _on(self, side: str, fast: list[str]) -> Iterator[str]:
        """LaTeX of what a decay of one side acts on, weight by weight."""
        for name in fast:
            sides, W = self.rule.memory.sides(name), _weight(name, fast)
            if side in sides and len(sides) == 2:
                lie = "rows" if sides.index(side) == 0 else "columns"
                yield rf"\text{{{lie} of }} {W}"
            elif side in sides:
                yield rf"\text{{entries of }} {W}"
            else:
                yield rf"{W} \text{{ by its geometric mean}}"


def _weight(name: str, fast: list[str]) -> str:
    """LaTeX of a weight: w1 is W where it is the only one, else W_1."""
    if len(fast) == 1:
        return "W"
    letter, digits = name[:1], name[1:]
    if letter in "wb" and digits.isdigit():
        return f"{'W' if letter == 'w' else 'b'}_{digits}"
    return rf"\mathrm{{{name.replace('_', '')}}}"
