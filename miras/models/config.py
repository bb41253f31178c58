"""LanguageModelConfig: the config of a language model."""

import dataclasses
import functools
import math
from typing import Literal

from miras.backends.dispatch import check_backend
from miras.config import require
from miras.layers import AttentionConfig, LayerConfig, MemoryConfig
from miras.mixers import AttentionMixer, TokenMixer
from miras.models.block_config import BlockConfig
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule

LETTERS = {"M": "memory", "S": "sliding-window attention", "A": "full attention"}
_ALONE = "lmm"  # what `architecture` calls the mixer `memory`
_ARCHITECTURES = (_ALONE, "mac", "mag", "mal")


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig(ScanOptions):
    """A language model like Llama with memories in place of attention, in some or all layers.

    Attributes:
        rule: the memory's four parts.
        architecture: the token mixer of M: "lmm", the memory alone, or Titans' memory as a
            context ("mac"), as a gate ("mag") or as a layer ("mal"), see `miras.mixers.titans`; or
            any other member of `miras.mixers`.
        pattern: the layers, one letter each, repeated over the depth: M memory, S sliding-window
            attention, A full attention; spaces are ignored, as in "M S M S".
        attention: of S and A, and of mac, mag and mal.
        vocab: number of tokens; 257 for bytes and a document start.
        width: of the residual stream.
        layers: number of blocks.
        heads: memories per layer, each of width / heads.
        chunk: tokens that share a snapshot of the memory; part of the model's definition.
        refine: sweeps towards the online rule within each chunk; see `miras.scan`.
        exact: the online rule in closed form; see `miras.scan`.
        mlp_ratio: SwiGLU's hidden width over `width`, rounded to a multiple of 8.
        layer: how tokens become the memory's inputs; see `miras.layers.LayerConfig`.
        tie: share one matrix between embedding and head.
        dtype: of activations and matrix products; parameters and logits are float32, and so are
            memories unless `precision` says otherwise.
        remat: recompute each block in the backward pass instead of storing its activations.
        save_every: checkpoint interval of the memory in chunks, or "sqrt"; see `miras.scan`.
        precision: dtypes of the memories; see `miras.Precision`.
        backend: of the memories; see `miras.scan`.
    """

    rule: Rule = Rule()
    architecture: Literal["lmm", "mac", "mag", "mal"] | TokenMixer = "lmm"
    pattern: str = "M"
    attention: AttentionConfig = dataclasses.field(default_factory=AttentionConfig)
    vocab: int = 257
    width: int = 128
    layers: int = 4
    heads: int = 4
    chunk: int = dataclasses.field(default=16, kw_only=True)
    mlp_ratio: float = 8 / 3
    layer: LayerConfig = dataclasses.field(default_factory=LayerConfig)
    tie: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: bool = True

    def validate(self) -> None:
        """Check ranges."""
        for name in ("vocab", "width", "layers", "heads", "chunk"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}={value} must be at least 1.")
        require(
            self.width % self.heads == 0,
            f"model.width={self.width} must be a multiple of model.heads={self.heads}.",
        )
        require(self.mlp_ratio > 0, f"model.mlp_ratio={self.mlp_ratio} must be positive.")
        self._name_architecture()
        self.check_rule(self.rule, "model.")
        check_backend(self.backend, "model.backend")
        self._check_pattern()
        for letter in dict.fromkeys(self.letters):
            self.block(letter).check("model.")
        self.layer.check_rule(self.rule)

    def _name_architecture(self) -> None:
        """Titans' architectures are strings, so that old configs keep their form."""
        architecture = self.architecture
        if isinstance(architecture, TokenMixer):
            name = _ALONE if architecture.kind == "memory" else architecture.kind
            if name in _ARCHITECTURES:
                object.__setattr__(self, "architecture", name)

    def _check_pattern(self) -> None:
        letters = self.letters
        wrong = [letter for letter in letters if letter not in LETTERS]
        legal = ", ".join(f"{letter} ({what})" for letter, what in LETTERS.items())
        require(
            bool(letters) and not wrong,
            f"model.pattern={self.pattern!r} must consist of the letters {legal}, as in 'M S M S'.",
        )
        require(
            self.layers % len(letters) == 0,
            f"model.layers={self.layers} must be a multiple of the {len(letters)} letters "
            f"of model.pattern={self.pattern!r}.",
        )
        rotates = any(self.block(letter).mixer.rotates for letter in letters)
        require(
            not rotates or self.width // self.heads % 2 == 0,
            f"model.width={self.width} / model.heads={self.heads} must be even, since the "
            "attention rotates pairs of channels.",
        )

    @property
    def letters(self) -> str:
        """The pattern without spaces."""
        return "".join(self.pattern.split())

    def block(self, letter: str) -> BlockConfig:
        """The block of a letter of the pattern."""
        return _block(self, letter)

    @property
    def mixer(self) -> TokenMixer:
        """The token mixer of M."""
        architecture = self.architecture
        if isinstance(architecture, TokenMixer):
            return architecture
        kind = "memory" if architecture == _ALONE else architecture
        return TokenMixer.registry.build(kind)

    @property
    def memory_layers(self) -> tuple[int, ...]:
        """Indices of the layers with a memory; of all layers if the pattern has none."""
        letters = self.letters
        measured = [self.block(letter).mixer.measures for letter in letters]
        found = [n for n in range(self.layers) if measured[n % len(letters)]]
        return tuple(found) or tuple(range(self.layers))

    @property
    def align(self) -> int:
        """Documents that begin at multiples of it need no extra computation: chunk or segment."""
        blocks = map(self.block, self.letters)
        aligns = [block.mixer.align(block) for block in blocks]
        known = [align for align in aligns if align is not None]
        return math.lcm(*known) if known else self.chunk

    @property
    def memory(self) -> MemoryConfig:
        """The rule and the options of the scan."""
        return MemoryConfig(self.rule, **vars(self.options))

    @property
    def growth_bytes(self) -> int:
        """Bytes that each token adds to a sequence's state; 0 without full attention."""
        itemsize = 2 if self.dtype == "bfloat16" else 4
        blocks = map(self.block, self.letters)
        whole = sum(block.mixer.growth(block, self.width, itemsize) for block in blocks)
        return self.layers // len(self.letters) * whole


@functools.lru_cache(maxsize=256)
def _block(config: LanguageModelConfig, letter: str) -> BlockConfig:
    """See `LanguageModelConfig.block`."""
    if letter in "SA":
        mixer = AttentionMixer.of(config.attention, windowed=letter == "S")
        return BlockConfig(mixer=mixer, backend=config.backend)
    names = ("rule", "layer", "attention")
    described = {name: getattr(config, name) for name in names} | vars(config.options)
    return BlockConfig(mixer=config.mixer, **described)
