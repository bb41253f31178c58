r"""Self-modifying memories: projections that are memories too, written while the model reads.

HOPE's token mixer (Nested Learning, arXiv 2512.24695), over any rule. Per head, of a token x_t:

    q_t = x_t W_q                                              static
    k_t = M_k(x_t), v_t = M_v(x_t)                             each M a memory of its own
    eta_t = range(M_eta(x_t) W_eta + b_eta)                    as alpha_t, the decay
    vhat_t = M(v_t)                                            for each M: it makes its own target
    M <- alpha_t M - eta_t grad loss(M(k_t), vhat_t)           by the rule; the same for every M
    o_t = M_mem(q_t)                                           before the write if read="snapshot"

M is one of M_k, M_v, M_eta, M_alpha and M_mem, each with a learned start and a state of its own.
With algorithm `dgd` and bias `l2` the update is HOPE's, M (alpha I - eta k^T k) - eta grad.

Everything that a chunk makes (k, v, eta, alpha, vhat) is read from the memories at the end of the
chunk before; within the chunk the rule runs token by token. There are two chunk sizes: `chunk` for
M_mem, and `projections_chunk` for the others.

The sources leave open, and this mixer decides:

- M_k reads q's kind of token: x_t after a causal convolution of its own, cut into heads, without a
  projection. It and v_t are divided by their norm wherever a memory reads them (k and q are
  normalised as the layer says), since memories are made for inputs of norm 1.
- eta and alpha are numbers per head (or per channel, as the rule has them). M_eta answers with a
  vector, so a learned linear map, 0 at the start, reads the number from the vectors of all heads.
  Other gates of the rule are static projections of x_t.
- Targets are constants of the inner gradient; the outer loss trains through them.
- The starts of M_k, ... are random where the memory's own start would be 0: a memory of zeros would
  make keys of 0, and nothing could be learned.

On a mesh that splits heads (`mesh.tensor`, `mesh.seq`) the memories of a head are on one device.
Only the vectors of all heads, from which eta and alpha are read, are gathered in every chunk.

A document begins with the learned starts. Calls may begin and end anywhere in a chunk; several
documents of one call that begin elsewhere than at multiples of `projections_chunk` are computed
token by token.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from miras.config import require
from miras.mixers.base import MixerConfig, TokenMixer, register
from miras.mixers.costs import weights_of
from miras.mixers.projecting import Projecting
from miras.parts.formula import Line

if TYPE_CHECKING:
    from flax import nnx

_SYMBOLS = {"k": "k_t", "v": "v_t", "eta": r"\eta_t", "alpha": r"\alpha_t"}
_PLAIN = {"keys": "plain", "gates": "plain"}
_WITHOUT = ("rope", "decay_by_depth", "lr_by_position")


@register("self_modifying")
@dataclasses.dataclass(frozen=True)
class SelfModifyingMixer(Projecting, TokenMixer):
    """Memories that make their own keys, values and gates: `miras.mixers.self_modifying`."""

    loops: ClassVar[bool] = True

    def build(self, config: MixerConfig, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """The layer."""
        from miras.mixers.self_modifying_layer import SelfModifyingLayer  # loads flax

        return SelfModifyingLayer(config.memory, self, width, heads, config.layer, rngs)

    def check(self, config: MixerConfig, where: str) -> None:
        """A memory with weights, chunks that fit, and a plain layer."""
        rule, layer = config.rule, config.layer
        told = "self_modifying"
        require(
            not rule.memory.keeps_tokens,
            f"{told} writes its projections as memories, but memory {rule.memory.kind!r} keeps "
            "tokens and has no weights: use memory 'matrix' or 'mlp'.",
        )
        require(
            not rule.memory.gates() and not rule.algorithm.averaged,
            f"{told} reads memories at tokens that have no gates yet, but {rule.kinds()} reads "
            "with gates, or averages steps: use memory 'matrix' or 'mlp', and averaged=False.",
        )
        require(
            not config.exact and not rule.algorithm.online,
            f"{told} reads projections before each chunk, but with exact=true, or algorithm "
            f"{rule.algorithm.kind!r}, a rule knows no chunk: use exact=false with algorithm "
            "'dgd' or 'gd', or chunk=1.",
        )
        span = self.span(config.chunk)
        require(
            span % config.chunk == 0,
            f"self_modifying.projections_chunk={span} must be a multiple of "
            f"{where}chunk={config.chunk}.",
        )
        for name, value in _PLAIN.items():
            require(
                getattr(layer, name) == value,
                f"{told} makes keys and gates itself, but {where}layer.{name} is "
                f"{getattr(layer, name)!r}: use {value!r}.",
            )
        for name in _WITHOUT:
            require(
                not getattr(layer, name),
                f"{told} does not support {where}layer.{name}=true: set it to false.",
            )

    @property
    def makes(self) -> tuple[str, ...]:
        """Those of memories."""
        return self.memories

    def align(self, config: MixerConfig) -> int | None:
        """The chunk of the projections."""
        return self.span(config.chunk)

    def flops(self, config: MixerConfig, width: int, heads: int, context: int) -> float:
        """A rule for each memory, and the reads of x_t and v_t."""
        count = len(self.memories)
        sizes = sum(leaf.size for leaf in weights_of(config.rule, width // heads).values())
        reads = count + (count + 1) * self.self_values
        own = super().flops(config, width, heads, context)
        return (1 + count) * own + 2.0 * heads * sizes * reads

    def formula(self) -> tuple[Line, ...]:
        """What is made by memories."""
        lines = [Line("q_t", "x_t W_q", when="static")]
        if self.memories:
            made = ", ".join(_SYMBOLS[name] for name in self.memories)
            lines.append(
                Line(made, "P(x_t)", when="P: a memory each, written by this rule at this k_t")
            )
        if self.self_values:
            lines.append(Line(r"\hat{v}_t", "M(W_r, v_t)", when="in place of v_t, for each memory"))
        return tuple(lines)

    def sources(self) -> tuple[str, ...]:
        """The paper."""
        return ("Nested Learning (HOPE), arXiv 2512.24695",)

    def describe(self, config: MixerConfig) -> str:
        """What is self-made, and the chunk."""
        made = ", ".join(self.memories) or "nothing"
        span = self.span(config.chunk)
        return f"self-modifying memories ({made} by memories, projections' chunk {span})"
