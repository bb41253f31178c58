"""The contract of a token mixer, the half of a block that mixes tokens, and what it is given."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

from miras.array_typing import Array
from miras.backends.dispatch import check_backend
from miras.config import Config, require
from miras.config.registry import Registry
from miras.layers.config import AttentionConfig, LayerConfig, MemoryConfig
from miras.mixers.costs import cached_bytes, memory_flops
from miras.mixers.names import NamedConfigs
from miras.parts.formula import Line
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

if TYPE_CHECKING:
    from flax import nnx


@dataclasses.dataclass(frozen=True)
class TokenMixer(Config):
    """A kind of token mixer, with the options that only this kind has.

    To add one: subclass with frozen fields, implement `build`, decorate with
    `@miras.mixers.register("kind")`. `build` returns an `nnx.Module` with the two methods

        init_state(batch: int, dtype) -> state
        __call__(x, *, state=None, segment_ids=None, mask=None, depth=0.0,
                 segments_at_chunks=False, health=False) -> (y, state, measured)

    that `miras.layers.MemoryLayer` documents: x and y are [B, T, width], and a sequence may be
    split anywhere and continued from the state. The state is a pytree of arrays [B, ...], of the
    same shapes before and after a call. Parameters name their axes (`miras.layers.param`). What a
    rule, a layer or an attention needs to be told is in the `MixerConfig` that `build` and the
    other methods are given; models and analyses know a mixer through these methods alone.
    `miras.testing.check_mixer` checks the whole.

    Attributes:
        kind: the name under which the class is registered.
        uses: the fields of `MixerConfig` that have an effect; `override` finds no others.
        measures: whether the module measures a memory: the third result of a call with `health`.
        rotates: whether it rotates pairs of channels, so that the width of a head must be even.
        loops: whether the module uses its projections inside a loop over segments, so that devices
            that split them gather them before the loop.
        takes_mimo: whether `layer.mimo` may be above 1, as in a plain `MemoryLayer`.
        takes_sizes: whether `layer.key_width`, `value_width`, `key_heads` and, for a memory that is
            no attention, `kv_heads` may be given, and `initial` be "zero", as in a plain
            `MemoryLayer`.
    """

    registry: ClassVar[Registry["TokenMixer"]] = Registry(
        "mixer", "miras.mixers", members="miras.mixers"
    )
    kind: ClassVar[str]
    uses: ClassVar[tuple[str, ...]] = ("rule", "chunk", "refine", "exact", "precision", "layer")
    measures: ClassVar[bool] = True
    rotates: ClassVar[bool] = False
    loops: ClassVar[bool] = False
    takes_mimo: ClassVar[bool] = False
    takes_sizes: ClassVar[bool] = False

    def instead(self, name: str) -> str:
        """The mixer's own options that contain the name, or to leave the field out."""
        own = [f.name for f in dataclasses.fields(self) if name in f.name]
        return f"set {' or '.join(own)}" if own else "leave it out"

    @property
    def makes(self) -> tuple[str, ...]:
        """Which of keys "k" and values "v" the mixer makes by other means than projections."""
        return ()

    def build(self, config: "MixerConfig", width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """The module.

        Args:
            config: the rule, the layer and the options that the mixer uses.
            width: of the tokens; a multiple of heads.
            heads: H, each of width / heads.
            rngs: stream `params`.
        """
        raise NotImplementedError

    def check(self, config: "MixerConfig", where: str) -> None:
        """Raise `ConfigError` for a config that the mixer does not support.

        Args:
            config: as for `build`.
            where: what the user calls the config, such as "model." or "model.blocks.N.".
        """

    def check_heads(self, config: "MixerConfig", width: int, heads: int, named: str) -> None:
        """Raise `ConfigError` for a width that the heads do not divide as the mixer needs.

        Args:
            config: as for `build`.
            width: of the tokens.
            heads: H.
            named: what the user calls the heads, as in "model.heads=4".
        """
        layer = self.layer_of(config)
        sized = layer.key_width is not None and layer.value_width is not None
        require(sized or width % heads == 0, f"model.width={width} must be a multiple of {named}.")
        require(
            heads % (layer.key_heads or heads) == 0,
            f"{named} must be a multiple of layer.key_heads={layer.key_heads}, since each head of "
            "keys serves as many heads of values as the others.",
        )
        grouped = self.grouped(config)
        require(
            heads % (grouped or heads) == 0,
            f"{named} must be a multiple of kv_heads={grouped}, since each head of keys and values "
            "serves as many heads of queries as the others.",
        )
        key = round(layer.rope_share * (layer.key_width or width // heads))
        require(
            not (self.rotates or layer.rope) or key % 2 == 0,
            f"model.width={width} / {named} must be even, since "
            f"{'the attention' if self.rotates else 'layer.rope=true'} rotates pairs of channels.",
        )

    def layer_of(self, config: "MixerConfig") -> LayerConfig:
        """The layer whose heads the mixer has; the default for a mixer that takes none."""
        return config.layer if "layer" in self.uses else LayerConfig()

    def grouped(self, config: "MixerConfig") -> int | None:
        """The heads of keys and values in its attention; None for as many as of queries."""
        return config.layer.kv_heads if "layer" in self.uses else None

    def align(self, config: "MixerConfig") -> int | None:
        """Documents that begin at multiples of it need no extra computation; None: at any token."""
        return config.chunk if "chunk" in self.uses else None

    def rules(self, config: "MixerConfig") -> tuple[Rule, ...]:
        """The rules of the memories that the module holds."""
        return (config.rule,) if "rule" in self.uses else ()

    def holds(self, config: "MixerConfig", width: int, heads: int) -> Iterator["HeldMixer"]:
        """The mixers inside this one that have a config of their own.

        Args:
            config: as for `build`.
            width: of the tokens.
            heads: H.
        """
        del config, width, heads
        yield from ()

    def shares_values(self, config: "MixerConfig") -> bool:
        """Whether the module is called with `values`, those of the model's first layer.

        It then has the method `first_values` of `miras.layers.MemoryLayer`.
        """
        del config
        return False

    def health_gates(self, config: "MixerConfig") -> frozenset[str]:
        """The learned gates of the rules, as `miras.layers.Health` names them."""
        learned = [gate.name for r in self.rules(config) for gate in r.gates if gate.learned]
        return frozenset(name.removeprefix("log_") for name in learned)

    def growth(self, config: "MixerConfig", width: int, heads: int, itemsize: int) -> int:
        """Bytes that each token adds to the state of a sequence.

        Args:
            config: as for `build`.
            width: of the tokens.
            heads: H.
            itemsize: bytes of a number of the activations.
        """
        caches = [rule.memory.token_cache for rule in self.rules(config)]
        whole = sum(cache is not None and cache.window is None for cache in caches)
        kept = width // heads * (self.grouped(config) or heads)
        return whole * cached_bytes(kept, itemsize)

    def flops(self, config: "MixerConfig", width: int, heads: int, context: int) -> float:
        """FLOPs of one token's forward pass, without projections.

        Args:
            config: as for `build`.
            width: of the tokens.
            heads: H.
            context: number of tokens before it.
        """
        return sum(
            memory_flops(rule, config.options, config.layer, width, heads, context)
            for rule in self.rules(config)
        )

    def until_parallel(self, config: "MixerConfig", state: Any) -> Array | None:
        """Tokens, [groups, B], after which a call is parallel; None where any call is."""
        del config, state
        return None

    def formula(self) -> tuple[Line, ...]:
        """What `miras.equations` writes of the output o_t, after the lines of the memory."""
        return ()

    def sources(self) -> tuple[str, ...]:
        """Papers of the formula, each with its equation or section."""
        return ()

    def describe(self, config: "MixerConfig") -> str:
        """A few words, as in "sliding-window attention, windows of 64"."""
        del config
        options = [f"{f.name} {getattr(self, f.name)}" for f in dataclasses.fields(self)]
        return ", ".join([self.kind, *options])


class HeldMixer(NamedTuple):
    """A mixer inside another: its path from the outer one's fields, its config and sizes."""

    path: str
    config: "MixerConfig"
    width: int
    heads: int


register = TokenMixer.registry.register

_DESCRIPTION = ("rule", "chunk", "refine", "exact", "precision", "layer", "attention")


@dataclasses.dataclass(frozen=True)
class MixerConfig(ScanOptions):
    """What a token mixer is built from.

    Fields that the mixer does not use (`TokenMixer.uses`) have no effect.

    Attributes:
        mixer: the kind of token mixer, and its own options.
        rule: the memory's four parts.
        layer: how tokens become the memory's inputs.
        attention: of mixers that combine a memory with attention.
        heads: H; those of the model if None.
        chunk: tokens that share a snapshot of the memory; see `miras.scan`.
    """

    registry: ClassVar[NamedConfigs]

    mixer: TokenMixer = cast(TokenMixer, "memory")
    rule: Rule = Rule()
    layer: LayerConfig = dataclasses.field(default_factory=LayerConfig)
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    heads: int | None = None
    chunk: int = dataclasses.field(default=16, kw_only=True)

    def validate(self) -> None:
        """Check ranges, and that the rule supports the options."""
        super().validate()
        require(
            self.heads is None or self.heads >= 1,
            f"heads={self.heads} must be at least 1, or none for those of the model.",
        )
        if "rule" in self.mixer.uses:
            self.check_rule(self.rule)
            self.layer.check_rule(self.rule)
        check_backend(self.backend)

    def standing(self, name: str) -> Literal["own", "deeper", "hidden"]:
        """Fields that the mixer does not use have no effect."""
        unused = name in _DESCRIPTION and name not in self.mixer.uses
        return "hidden" if unused else "own"

    def instead(self, name: str) -> str:
        """What the mixer has in place of a field."""
        return self.mixer.instead(name)

    def hashed_as(self) -> dict[str, Any]:
        """Nothing for fields without effect."""
        return {name: None for name in _DESCRIPTION if name not in self.mixer.uses}

    def check(self, where: str) -> None:
        """Raise `ConfigError` if the mixer does not support the config; see `TokenMixer.check`."""
        several = "layer" in self.mixer.uses and self.layer.mimo > 1
        require(
            not several or self.mixer.takes_mimo,
            f"{where}layer.mimo={self.layer.mimo} reads a memory several times a token, which "
            f"mixer {self.mixer.kind!r} does not: use layer.mimo=1, or mixer 'memory'.",
        )
        layer = self.layer
        plain = not layer.separate and layer.initial == "learned" and not layer.bonus
        plain = plain and layer.output_norm_kind == "rms" and not layer.output_gate_rank
        require(
            plain or "layer" not in self.mixer.uses or self.mixer.takes_sizes,
            f"{where}layer.key_width, value_width, key_heads, initial='zero', token_shift, "
            "value_residual, bonus, output_norm_kind='layer' and output_gate_rank are of mixer "
            f"'memory', not of {self.mixer.kind!r}: leave them out, or use mixer 'memory'.",
        )
        grouped = self.layer.kv_heads is not None and not self.rule.memory.keeps_tokens
        require(
            not grouped or "layer" not in self.mixer.uses or self.mixer.takes_sizes,
            f"{where}layer.kv_heads={self.layer.kv_heads} groups the queries of mixer 'memory', "
            f"not those of {self.mixer.kind!r}: leave it out, or use mixer 'memory'.",
        )
        self.mixer.check(self, where)

    def build(self, width: int, heads: int, rngs: "nnx.Rngs") -> Any:
        """The mixer's module; `heads` is that of the model, for a config without its own."""
        return self.mixer.build(self, width, self.heads or heads, rngs)

    @property
    def memory(self) -> MemoryConfig:
        """The rule and the options of the scan."""
        return MemoryConfig(self.rule, **vars(self.options))


MixerConfig.registry = NamedConfigs(MixerConfig, TokenMixer.registry)
