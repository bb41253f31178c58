r"""The mixer `parallel`: several mixers on one input.

With the mixers f_1 .. f_n of width d:

    sum      y = sum_i f_i(x)
    mean     y = 1/n sum_i RMSNorm_i(f_i(x))                     as in Hymba (2411.13676, eq. 4)
    gate     y = sum_i softmax_i(x W)_i f_i(x),  W = 0 at the start: the mean
    heads    y = [f_1(x W_1) || .. || f_n(x W_n)] W_out          f_i has some of the heads, and
                                                                 the width of these alone

In the last form, Hymba's heads are split between the mixers; W_i is [d, width of f_i].
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from miras.config import require
from miras.mixers.base import HeldMixer, MixerConfig, TokenMixer, register

if TYPE_CHECKING:
    from flax import nnx


@register("parallel")
@dataclasses.dataclass(frozen=True)
class ParallelMixer(TokenMixer):
    """Several mixers on one input; see the module.

    Attributes:
        of: the mixers. A kind of mixer, as in "memory" or {"kind": "attention", "window": 32}, has
            the block's own rule, layer and options; a preset's name or a dict of the fields of
            `MixerConfig` has its own.
        combine: how their outputs become one.
    """

    of: tuple[TokenMixer | MixerConfig, ...] = ("memory", "attention")  # pyright: ignore
    combine: Literal["sum", "mean", "gate", "heads"] = "sum"

    def validate(self) -> None:
        """At least two mixers."""
        require(
            len(self.of) >= 2,
            f"parallel.of has {len(self.of)} mixers: give at least two, or use the mixer alone.",
        )

    def branches(self, config: MixerConfig) -> tuple[MixerConfig, ...]:
        """The configs of the mixers, within a block."""
        fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(MixerConfig)}
        alone = self.combine == "heads"  # then `heads` is what it has of the block's
        made = []
        for item in self.of:
            if isinstance(item, TokenMixer):
                made.append(MixerConfig(**fields | {"mixer": item, "heads": None}))
            else:
                heads = item.heads if alone else item.heads or config.heads
                made.append(dataclasses.replace(item, heads=heads, backend=config.backend))
        return tuple(made)

    @property
    def uses(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What those mixers use that have no options of their own."""
        kinds = [item for item in self.of if isinstance(item, TokenMixer)]
        return tuple(dict.fromkeys(name for kind in kinds for name in kind.uses))

    @property
    def measures(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether one of them measures a memory."""
        return any(_mixer(item).measures for item in self.of)

    @property
    def rotates(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether one of them rotates channels."""
        return any(_mixer(item).rotates for item in self.of)

    def heads_of(self, config: MixerConfig, heads: int) -> tuple[int, ...]:
        """The heads of each mixer; those of the block, divided between them in the form "heads"."""
        given = [branch.heads for branch in self.branches(config)]
        if self.combine != "heads":
            return tuple(own or heads for own in given)
        rest, open_ = heads - sum(own or 0 for own in given), given.count(None)
        shares = iter(rest // open_ + (n < rest % open_) for n in range(open_)) if open_ else None
        return tuple(own or next(shares or iter(())) for own in given)

    def _sizes(
        self, config: MixerConfig, width: int, heads: int
    ) -> Iterator[tuple[MixerConfig, int, int]]:
        """The config, the width and the heads of each mixer."""
        for branch, own in zip(self.branches(config), self.heads_of(config, heads)):
            yield branch, width // heads * own if self.combine == "heads" else width, own

    def holds(self, config: MixerConfig, width: int, heads: int) -> Iterator[HeldMixer]:
        """Those given with a config, and those inside of the others."""
        sizes = enumerate(zip(self.of, self._sizes(config, width, heads)))
        for n, (item, (branch, own_width, own_heads)) in sizes:
            if isinstance(item, MixerConfig):
                yield HeldMixer(f"of.{n}", branch, own_width, own_heads)
            else:
                for held in item.holds(branch, own_width, own_heads):
                    yield held._replace(path=f"of.{n}.{held.path}")

    def check(self, config: MixerConfig, where: str) -> None:
        """Each mixer is legal, and segments begin at common places."""
        branches = self.branches(config)
        for branch in branches:
            branch.check(where)
        aligns = [branch.mixer.align(branch) for branch in branches]
        known = sorted({align for align in aligns if align is not None})
        for small, large in itertools.pairwise(known):
            require(
                large % small == 0,
                f"{where}mixer='parallel' has mixers with segments or chunks of {small} and of "
                f"{large} tokens: make the larger a multiple of the smaller.",
            )

    def check_heads(self, config: MixerConfig, width: int, heads: int, named: str) -> None:
        """Each mixer has heads of a whole and, for attention, an even width."""
        super().check_heads(config, width, heads, named)
        if self.combine == "heads":
            given = [branch.heads or 0 for branch in self.branches(config)]
            open_ = given.count(0)
            fits = sum(given) + open_ <= heads if open_ else sum(given) == heads
            require(
                fits,
                f"{named} cannot be split between {len(given)} parallel mixers with heads "
                f"{given} (0: the rest): their sum must be {heads}, with one each at least.",
            )
        for branch, w, own in self._sizes(config, width, heads):
            branch.mixer.check_heads(branch, w, own, f"parallel.of heads={own}")

    def build(self, config: MixerConfig, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """The mixers, and what combines them."""
        from miras.mixers.branches import Branches  # configs load without flax

        branches, widths, own = zip(*self._sizes(config, width, heads))
        made = zip(branches, widths, own)
        built = [branch.mixer.build(branch, w, n, rngs) for branch, w, n in made]
        return Branches(built, widths, self.combine, self.measured, width, rngs)

    def align(self, config: MixerConfig) -> int | None:
        """The largest of those of the mixers."""
        aligns = [branch.mixer.align(branch) for branch in self.branches(config)]
        return math.lcm(*(align for align in aligns if align is not None)) if any(aligns) else None

    def rules(self, config):
        """Those of all of them."""
        branches = self.branches(config)
        return tuple(rule for branch in branches for rule in branch.mixer.rules(branch))

    def health_gates(self, config):
        """Those of the mixer that is measured."""
        branch = self.branches(config)[self.measured]
        return branch.mixer.health_gates(branch)

    @property
    def measured(self) -> int:
        """The mixer whose memory is measured: the first that has one."""
        return next((n for n, item in enumerate(self.of) if _mixer(item).measures), 0)

    def grouped(self, config):
        """Each mixer has its own."""

    def growth(self, config, width, heads, itemsize):
        """Those of all of them."""
        sizes = self._sizes(config, width, heads)
        return sum(b.mixer.growth(b, w, own, itemsize) for b, w, own in sizes)

    def flops(self, config, width, heads, context):
        """Those of all of them."""
        sizes = self._sizes(config, width, heads)
        return sum(b.mixer.flops(b, w, own, context) for b, w, own in sizes)

    def until_parallel(self, config, state):
        """That of the first mixer that has one."""
        for branch, of_branch in zip(self.branches(config), state):
            left = branch.mixer.until_parallel(branch, of_branch)
            if left is not None:
                return left
        return None

    def describe(self, config):
        """Each of them."""
        told = "; ".join(branch.mixer.describe(branch) for branch in self.branches(config))
        return f"in parallel ({self.combine}): {told}"


def _mixer(item: MixerConfig | TokenMixer) -> TokenMixer:
    return item if isinstance(item, TokenMixer) else item.mixer
