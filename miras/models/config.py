"""LanguageModelConfig: the config of a language model."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from miras.backends.dispatch import check_backend
from miras.config import FrozenMapping, added, coerce, require
from miras.layers import AttentionConfig, LayerConfig, MemoryConfig
from miras.layers.head_sizes import head_sizes
from miras.mixers import AttentionMixer, ChannelMixer, SwiGLUChannel, TokenMixer
from miras.models.block_config import BlockConfig
from miras.models.remat import Remat, canonical
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
            attention, A full attention, others as in `blocks`; spaces are ignored, as in "M S M S".
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
        norm: where the norms of M are; see `BlockConfig`.
        norm_eps: added to the mean square by the norms before mixers and before the head, > 0.
        norm_kind: of these norms: "rms", or "layer" for LayerNorm with a bias.
        embedding_norm: whether the embedding has such a norm, too.
        dtype: of activations and matrix products; parameters and logits are float32, and so are
            memories unless `precision` says otherwise.
        remat: what the backward pass of each block recomputes: "full", everything, so that only
            the inputs of blocks are stored (true, the default); "none", nothing (false); "minimal",
            all but matrix products, memories and attention; "save_memory_outputs", all but
            memories and attention; "offload", as that, with these kept in the host's memory.
        save_every: checkpoint interval of the memory in chunks, or "sqrt"; see `miras.scan`.
        precision: dtypes of the memories; see `miras.Precision`.
        backend: of the memories; see `miras.scan`.
        channel: the channel mixer of M, S and A.
        blocks: further blocks by their letters, A to Z; in place of S and A, too. M is the block of
            the model's own fields, into which a block M is merged.
    """

    mapping: ClassVar[str | None] = "blocks"

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
    remat: Remat = True
    norm: Literal["pre", "post"] = added("pre")
    norm_eps: float = added(1e-6)
    norm_kind: Literal["rms", "layer"] = added("rms")
    embedding_norm: bool = added(False)
    channel: ChannelMixer = added(SwiGLUChannel())
    blocks: FrozenMapping[BlockConfig] = added(FrozenMapping())

    def __post_init__(self):
        if isinstance(self.blocks, Mapping):  # names, which take the heads that fit
            named = {
                letter: self.adopt(letter, coerce(block, BlockConfig, f"blocks.{letter}"))
                if isinstance(block, str)
                else block
                for letter, block in self.blocks.items()
            }
            object.__setattr__(self, "blocks", FrozenMapping(named))
        super().__post_init__()

    def validate(self) -> None:
        """Check ranges."""
        self._merge_block_of_memory()
        object.__setattr__(self, "remat", canonical(self.remat))
        for name in ("vocab", "width", "layers", "heads", "chunk"):
            value = getattr(self, name)
            require(value >= 1, f"model.{name}={value} must be at least 1.")
        require(self.norm_eps > 0, f"model.norm_eps={self.norm_eps} must be positive.")
        require(self.mlp_ratio > 0, f"model.mlp_ratio={self.mlp_ratio} must be positive.")
        self._name_architecture()
        self.check_rule(self.rule, "model.")
        check_backend(self.backend, "model.backend")
        self._check_pattern()
        for letter in dict.fromkeys(self.letters):
            self.block(letter).check(
                f"model.blocks.{letter}." if letter in self.blocks else "model."
            )
        self.layer.check_rule(self.rule)

    def _merge_block_of_memory(self) -> None:
        """The block M in the fields of the model."""
        others = {letter: block for letter, block in self.blocks.items() if letter != "M"}
        if len(others) == len(self.blocks):
            return
        block = self.blocks["M"]
        fields = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}
        fields |= {"architecture": fields.pop("mixer"), "blocks": FrozenMapping(others)}
        fields["heads"] = fields["heads"] or self.heads
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _name_architecture(self) -> None:
        """Titans' architectures are strings, so that old configs keep their form."""
        architecture = self.architecture
        if isinstance(architecture, TokenMixer):
            name = _ALONE if architecture.kind == "memory" else architecture.kind
            if name in _ARCHITECTURES:
                object.__setattr__(self, "architecture", name)

    def _check_pattern(self) -> None:
        letters = self.letters
        for letter in self.blocks:
            require(
                self.named_entry(letter),
                f"model.blocks has the name {letter!r}: a block's name is one letter from A to Z.",
            )
        wrong = [letter for letter in letters if letter not in {*LETTERS, *self.blocks}]
        legal = ", ".join(f"{letter} ({what})" for letter, what in LETTERS.items())
        legal = ", ".join([legal, *(x for x in self.blocks if x not in LETTERS)])
        missing = f"; {wrong[0]} needs a block, as in blocks.{wrong[0]}=yaad" if wrong else ""
        require(
            bool(letters) and not wrong,
            f"model.pattern={self.pattern!r} must consist of the letters {legal}, as in 'M S M S'"
            f"{missing if wrong and self.named_entry(wrong[0]) else ''}.",
        )
        unused = [letter for letter in self.blocks if letter not in letters]
        require(
            not unused,
            f"model.blocks.{unused and unused[0]} is not in model.pattern={self.pattern!r}: add it "
            "to the pattern, or remove all blocks with blocks={}.",
        )
        require(
            self.layers % len(letters) == 0,
            f"model.layers={self.layers} must be a multiple of the {len(letters)} letters "
            f"of model.pattern={self.pattern!r}.",
        )
        for letter in dict.fromkeys(letters):
            self._check_heads(letter)
        self._check_values()

    def _check_values(self) -> None:
        """All blocks that mix their values with those of the first layer have as many as it has."""
        sizes = {}
        for letter in self.letters:
            block = self.block(letter)
            if block.mixer.shares_values(block):
                found = head_sizes(block.layer, self.width, block.heads or self.heads)
                sizes[letter] = found.values, found.value
        first = self.letters[0]
        require(
            not sizes or first in sizes,
            f"layer.value_residual of block {next(iter(sizes), None)} mixes values with those of "
            f"the first layer, whose block {first} does not have it: set it there, too, or begin "
            "the pattern with another block.",
        )
        for letter, size in sizes.items():
            require(
                size == sizes[first],
                f"layer.value_residual mixes values of block {letter}, {size[0]} heads of width "
                f"{size[1]}, with those of the first layer's block {first}, {sizes[first][0]} "
                f"heads of width {sizes[first][1]}: give both the same.",
            )

    @property
    def value_residual(self) -> bool:
        """Whether blocks mix their values with those of the first layer."""
        first = self.block(self.letters[0])
        return first.mixer.shares_values(first)

    def _check_heads(self, letter: str) -> None:
        block = self.block(letter)
        own, heads = block.heads, block.heads or self.heads
        named = f"model.blocks.{letter}.heads={own}" if own else f"model.heads={heads}"
        block.mixer.check_heads(block, self.width, heads, named)

    @property
    def letters(self) -> str:
        """The pattern without spaces."""
        return "".join(self.pattern.split())

    def block(self, letter: str) -> BlockConfig:
        """The block of a letter of the pattern."""
        return _block(self, letter)

    def standing(self, name: str) -> Literal["own", "deeper", "hidden"]:
        """Beside other blocks, the fields of M are found as theirs are, and only if M is used.

        Alone, M hides the chunk if its memories have their own.
        """
        if not self.blocks and name == "chunk" and "M" in self.letters:
            has_own = "rule" in self.mixer.uses and name not in self.mixer.uses
            return "hidden" if has_own else "own"
        if not self.blocks or name not in (*TokenMixer.uses, "architecture", "attention"):
            return "own"
        described = [letter for letter in self.letters if letter not in self.blocks]
        if name == "attention":
            used = [x for x in described if x != "M" or name in self.mixer.uses]
        else:
            used = "M" in self.letters and (name == "architecture" or name in self.mixer.uses)
        return "deeper" if used else "hidden"

    def instead(self, name: str) -> str:
        """What the mixer of M has in place of a field."""
        return self.mixer.instead(name)

    def named_entry(self, name: str) -> bool:
        """Any letter from A to Z."""
        return len(name) == 1 and "A" <= name <= "Z"

    def entry(self, name: str) -> BlockConfig:
        """The block of a letter; S and A have one by default."""
        if name in self.blocks:
            return self.blocks[name]
        require(
            name in LETTERS,
            f"there is no block {name}: give it first, as in blocks.{name}=yaad.",
        )
        return _block(self, name)

    def path_of_entry(self, name: str, inner: list[str]) -> list[str]:
        """M is the model's own fields."""
        if name != "M":
            return super().path_of_entry(name, inner)
        return [{"mixer": "architecture"}.get(inner[0], inner[0]), *inner[1:]]

    def adopt(self, name: str, entry: Any) -> Any:
        """The block of a preset has the heads of the model where its own do not fit the width."""
        fits = not entry.heads or self.width % entry.heads == 0
        return entry if fits else dataclasses.replace(entry, heads=None)

    @property
    def mixer(self) -> TokenMixer:
        """The token mixer of M."""
        architecture = self.architecture
        if isinstance(architecture, TokenMixer):
            return architecture
        kind = "memory" if architecture == _ALONE else architecture
        return TokenMixer.registry.build(kind)

    @property
    def memory_blocks(self) -> tuple[int, ...]:
        """Places in the pattern of the blocks with a memory; of all blocks if none has one."""
        letters = self.letters
        measured = [n for n, letter in enumerate(letters) if self.block(letter).mixer.measures]
        return tuple(measured) or tuple(range(len(letters)))

    @property
    def memory_layers(self) -> tuple[int, ...]:
        """Indices of the layers with a memory; of all layers if the pattern has none."""
        size, places = len(self.letters), self.memory_blocks
        return tuple(n for n in range(self.layers) if n % size in places)

    @property
    def memory_gates(self) -> tuple[frozenset[str], ...]:
        """The learned gates of each memory layer, as `Health.gates` names them."""
        blocks = [self.block(letter) for letter in self.letters]
        gates = [block.mixer.health_gates(block) for block in blocks]
        return tuple(gates[n % len(gates)] for n in self.memory_layers)

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
        whole = 0
        for block in map(self.block, self.letters):
            whole += block.mixer.growth(block, self.width, block.heads or self.heads, itemsize)
        return self.layers // len(self.letters) * whole


@functools.lru_cache(maxsize=256)
def _block(config: LanguageModelConfig, letter: str) -> BlockConfig:
    """See `LanguageModelConfig.block`."""
    if letter in config.blocks:
        block = config.blocks[letter]
        backend = config.backend if block.backend == "auto" else block.backend
        save_every = block.save_every or config.save_every
        return dataclasses.replace(block, backend=backend, save_every=save_every)
    if letter in "SA":
        mixer = AttentionMixer.of(config.attention, windowed=letter == "S")
        return BlockConfig(mixer=mixer, backend=config.backend, channel=config.channel)
    names = ("rule", "layer", "attention", "channel", "norm")
    described = {name: getattr(config, name) for name in names} | vars(config.options)
    return BlockConfig(mixer=config.mixer, **described)
