"""What a cell costs, and how strongly its memories are written, from its config alone."""

import functools
from typing import TYPE_CHECKING, NamedTuple

from miras.errors import ConfigError

if TYPE_CHECKING:
    from miras.train import RunConfig


class MemoryRate(NamedTuple):
    """The inner rate of a memory of a model.

    Attributes:
        path: of its rule in the model's config, such as "rule".
        lr: `algorithm.lr`.
        strength: the write strength at that rate, see `miras.strength`; None if the rule has none.
    """

    path: str
    lr: float
    strength: float | None


class CellCosts(NamedTuple):
    """Sizes and FLOPs of a run.

    Attributes:
        parameters: number of trained parameters.
        state_bytes: of the state of one sequence at the end of a row of the data, the cache of
            full attention included.
        step_flops: model FLOPs of an update, forward and backward; see `plan.flops`.
        step_tokens: tokens of an update.
        steps: updates.
        rates: of the memories that differ, in order.
    """

    parameters: int
    state_bytes: int
    step_flops: float
    step_tokens: int
    steps: int
    rates: tuple[MemoryRate, ...]

    @property
    def token_flops(self) -> float:
        """Model FLOPs of a token in training."""
        return self.step_flops / self.step_tokens

    @property
    def tokens(self) -> int:
        """Tokens of the run."""
        return self.step_tokens * self.steps

    @property
    def flops(self) -> float:
        """Model FLOPs of the run."""
        return self.step_flops * self.steps


@functools.lru_cache(maxsize=1024)
def cell_costs(config: "RunConfig") -> CellCosts:
    """The costs of a run; nothing is trained, and only the probe of the strength is computed."""
    from miras.analysis.utilization import model_flops

    return CellCosts(
        parameters=parameters(config),
        state_bytes=state_bytes(config),
        step_flops=model_flops(config),
        step_tokens=config.data.batch * config.data.sequence * config.train.accumulate,
        steps=config.train.steps,
        rates=_rates(config),
    )


def parameters(config: "RunConfig") -> int:
    """The number of trained parameters."""
    import jax
    from flax import nnx

    from miras.train.objective_of import objective_of
    from miras.train.state import structure

    params = structure(config.model, objective_of(config.data))[1]
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.to_pure_dict(params)))


def state_bytes(config: "RunConfig") -> int:
    """The bytes of the state of one sequence at the end of a row of the data."""
    from miras.analysis import costs

    return costs.state_bytes(config.model) + config.model.growth_bytes * config.data.sequence


def known_costs(config: "RunConfig") -> CellCosts | None:
    """As `cell_costs`; None for a model whose costs cannot be counted, which is trained anyway."""
    try:
        return cell_costs(config)
    except ConfigError:
        return None


def _rates(config: "RunConfig") -> tuple[MemoryRate, ...]:
    from miras.analysis.strength.curve import strength
    from miras.analysis.strength.memories import memories

    found: dict[tuple[float, float | None], MemoryRate] = {}
    for path, rule, chunk, d, lr_by_position in memories(config.model):
        try:
            value = strength(rule, d, chunk=chunk, lr_by_position=lr_by_position).value
        except ConfigError:  # a rule without a rate
            value = None
        rate = MemoryRate(path, rule.algorithm.lr, value)
        found.setdefault((rate.lr, rate.strength), rate)
    return tuple(found.values())
