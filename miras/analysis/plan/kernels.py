"""The time of memories in kernels: cycles of a core for a token of a head.

    cycles = products / rate of the matrix units + vector work + c E / (1024 chunk)

The products are those of `flops`, with every dimension rounded up to the size of a matrix unit.
Vector work is a number of cycles a token, and c operations a chunk on each register of 1024 entries
of the memory, of which it has E. The constants are a fit to `benchmarks/results/tpu_schedule.md`,
the compiler's schedules for a v5e: within 40 % of each row, but for backward passes in chunks below
32 tokens and for links that take logarithms, which take up to 1.7 times as long.
"""

import math
from typing import NamedTuple

from miras.analysis.plan.chips import Chip, MatrixUnits
from miras.layers.config import LayerConfig
from miras.layers.head_sizes import head_widths
from miras.mixers.costs import update_and_read_flops, weights_of
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

_REGISTER = 1024  # entries
# Products of the backward pass, which recomputes the forward pass, over those of the forward pass;
# the inverse of an exact rule is made once.
_BACKWARD, _BACKWARD_EXACT = 3, 2.2
# The same where a weight has many entries: products that are summed to its gradient are one product
# there, see `backends.pallas.tpu.summed_products`.
_BACKWARD_JOINED, _MANY_ENTRIES = 2.5, 2**16


class Cycles(NamedTuple):
    """Of a token of a head.

    Attributes:
        forward: of the forward pass, which saves states.
        backward: of the backward pass, which recomputes each chunk.
    """

    forward: float
    backward: float


class _Vectors(NamedTuple):
    """Vector work: cycles a token, and operations a chunk on each register of the memory."""

    token: float
    register: float
    link: float  # more operations, where a map is applied to the memory after each chunk


_FORWARD_VECTORS, _BACKWARD_VECTORS = _Vectors(3, 4, 10), _Vectors(5, 10, 30)


def cycles(
    rule: Rule, options: ScanOptions, layer: LayerConfig, head: int, units: MatrixUnits
) -> Cycles:
    """Cycles of a core for a token of one head.

    Args:
        rule: the four parts, with a memory of weights.
        options: chunk, refine and exact.
        layer: how tokens become keys.
        head: width of the head.
        units: the matrix units of the core.
    """
    padded = update_and_read_flops(rule, options, layer, head, 1, multiple=units.size)
    products = sum(padded) / (2 * units.number * units.rows * units.size**2)
    sizes = [leaf.size for leaf in weights_of(rule, *head_widths(layer, head, 1)).values()]
    registers = math.ceil(sum(sizes) / _REGISTER) / options.chunk

    def total(passes: float, vectors: _Vectors) -> float:
        operations = vectors.register + vectors.link * (rule.retention.linked is not None)
        return passes * products + vectors.token + operations * registers

    joined = max(sizes) >= _MANY_ENTRIES
    backward = _BACKWARD_JOINED if joined else _BACKWARD
    backward = _BACKWARD_EXACT if options.exact else backward
    return Cycles(total(1, _FORWARD_VECTORS), total(backward, _BACKWARD_VECTORS))


def seconds(chip: Chip, each: Cycles, tokens: float, forwards: int) -> float:
    """Seconds of a chip for tokens x heads, with as many forward passes and one backward pass."""
    return tokens * (forwards * each.forward + each.backward) / (chip.clock * chip.cores)
