"""ScanOptions: how a rule is run over a sequence; the same for configs, `scan` and backends."""

import dataclasses
from typing import Any, Literal, TypeVar

from miras.config import Config, require, without_effect
from miras.rule import legality
from miras.rule.precision import Precision
from miras.rule.rule import Rule

# Save one memory every so many chunks; None leaves the choice to the backend.
SaveEvery = int | Literal["sqrt"] | None

T = TypeVar("T", bound="ScanOptions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScanOptions(Config):
    """How a rule is run. `miras.scan` takes the fields as keywords; configs inherit them.

    Attributes:
        chunk: C, the tokens whose inner gradients share one snapshot of the memory, >= 1; 1 is the
            online rule. C is part of the model: another C computes another function.
        refine: n sweeps towards the online rule inside each chunk, >= 0: sweep i takes the gradient
            of token s at the W_{s-1} that sweep i - 1 implies. The papers use 0. n >= C is the
            online rule.
        exact: compute the online rule in closed form, for linear memories with a quadratic bias.
            C is then a tile size, and not part of the model.
        save_every: save one memory every `save_every` chunks for the backward pass, which
            recomputes those between. "sqrt" takes the square root of the number of chunks, so that
            memory grows with the square root of T, at the cost of one more forward pass. None
            leaves the choice to the backend. No value depends on it.
        precision: the dtypes in which the memory is kept, multiplied and summed.
        backend: "auto", the first backend preferred on this device that supports the call, else
            "xla"; "xla"; "pallas", kernels on a TPU or a GPU; or "reference", token by token, the
            oracle. See `miras.backends.base`.
    """

    chunk: int = 64
    refine: int = 0
    exact: bool = False
    save_every: SaveEvery = None
    precision: Precision = dataclasses.field(default_factory=Precision)
    backend: str = without_effect("auto")

    def validate(self) -> None:
        """Check ranges."""
        require(self.chunk >= 1, f"chunk={self.chunk} must be at least 1.")

    def check_rule(self, rule: Rule, where: str = "") -> None:
        """Raise `ConfigError` for options that a rule does not support.

        Args:
            rule: the four parts.
            where: what the user calls the config of the options, such as "model.".
        """
        check_save_every(self.save_every, f"{where}save_every")
        for condition in legality.of_semantics(rule, self.refine, self.exact):
            require(condition.legal, condition.reason)
        self.precision.check_memory(rule.memory)

    @property
    def options(self) -> "ScanOptions":
        """The options alone, of a config that inherits them."""
        names = (field.name for field in dataclasses.fields(ScanOptions))
        return ScanOptions(**{name: getattr(self, name) for name in names})

    def replace(self: T, **changes: Any) -> T:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


def check_save_every(save_every: object, name: str) -> None:
    """Raise `ConfigError` for a value that is not a `SaveEvery`, which the user calls `name`."""
    chunks = isinstance(save_every, int) and not isinstance(save_every, bool) and save_every >= 1
    require(
        chunks or save_every in (None, "sqrt"),
        f"{name}={save_every!r} must be a number of chunks of at least 1, 'sqrt' or None.",
    )
