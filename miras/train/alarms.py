"""Alarms of the memories: a warning when the measurements of a layer's memory go out of bounds.

Two measurements of `Health` say early that an inner loop diverges, while the loss is still finite:

    update_ratio = |A_T - A_0| / |A_T|     over 2: the tokens of a row write more than twice the
                                           memory that they leave
    memory_norm  = |W_T|                   over 10 times that of the run's first measurement

A memory that starts at zero has an update ratio of 1, and one that adds to what it has less.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from miras.models import LanguageModelConfig
from miras.train.nonfinite import lower_inner_rate

RATIO = 2.0
GROWTH = 10.0
_AGAIN = 2.0  # times what was warned of, at which the same alarm warns again


class Alarms:
    """Compares measurements of the memories with their bounds.

    Args:
        model: of the run.
        lines: of `metrics.jsonl` so far; the first measurement of the run may be among them.
    """

    def __init__(self, model: LanguageModelConfig, lines: Sequence[Mapping[str, Any]] = ()):
        self._model = model
        before = [line for line in lines if line.get("kind") == "health"]
        self._first: list[Any] | None = before[0].get("memory_norm") if before else None
        self._warned: dict[tuple[str, int], float] = {}

    def check(self, step: int, health: Mapping[str, Any]) -> Iterator[str]:
        """The warnings about a measurement.

        Args:
            step: updates done.
            health: lists with a number for each layer that has a memory.
        """
        norms = health["memory_norm"]
        first = self._first = self._first or norms
        for index, (norm, ratio) in enumerate(zip(norms, health["update_ratio"], strict=True)):
            layer = self._model.memory_layers[index]
            if self._is_news("update_ratio", layer, ratio, RATIO):
                yield self._warning(
                    step, layer, f"the tokens of a row write {ratio:.3g} times the memory (over 2)"
                )
            start = first[index] if index < len(first) else None
            growth = norm / start if start else 0.0
            if self._is_news("memory_norm", layer, growth, GROWTH):
                yield self._warning(
                    step,
                    layer,
                    f"its norm is {norm:.3g}, {growth:.3g} times that at first (over 10)",
                )

    def _is_news(self, name: str, layer: int, value: float, bound: float) -> bool:
        """Whether a value is out of bounds, and far beyond what was warned of before."""
        if not math.isfinite(value) or value <= self._warned.get((name, layer), bound):
            return False
        self._warned[name, layer] = _AGAIN * value
        return True

    def _warning(self, step: int, layer: int, what: str) -> str:
        rate = lower_inner_rate(self._model, layer)
        lower = f"lower its inner rate ({rate})" if rate else "lower train.learning_rate"
        return f"warning: step {step}, the memory of layer {layer}: {what}; {lower} in a new run."
