"""The configs of memories, of the layers around them, and of attention."""

import dataclasses
from typing import Literal

from miras.backends.dispatch import check_backend
from miras.config import Config, added, require
from miras.layers.layer_checks import check_decays, check_kv_heads, check_sizes, check_streams
from miras.memory import attention
from miras.optim import without_steps
from miras.rule import legality
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


@dataclasses.dataclass(frozen=True)
class MemoryConfig(ScanOptions):
    """A rule and the options of its scan.

    Attributes:
        rule: the four parts.
    """

    rule: Rule

    def validate(self) -> None:
        """Check that the rule supports the options."""
        super().validate()
        self.check_rule(self.rule)
        check_backend(self.backend)


@dataclasses.dataclass(frozen=True)
class LayerConfig(Config):
    """The layer around a rule.

    Attributes:
        conv: kernel size of the causal convolution on q, k and v; 0 for none.
        conv_bias: whether that convolution has a learned bias per channel, 0 at the start.
        activation: "silu" after that convolution (Titans), or None.
        qk_norm: "l2" normalises queries and keys per head; "rms" by their root mean square, with a
            learned scale of each head; "rms_shared" has one scale for all heads, and "rms_all"
            takes the root mean square over all heads together. None does not.
        qk_norm_eps: added to that mean square, > 0.
        qk_bias: add a learned bias per head and channel to queries and keys after that norm, 1 at
            the start (Mamba-3, 2603.15569).
        keys: the associations of a token. "plain": one key and value. "product": one for each step
            of the algorithm, with its own key, value and rate (DeltaProduct, 2502.10297). "rwkv7":
            an erasure along a normalised key and a write along a modulated one (2503.14456).
            "comba": the error is read at a scaled key (2506.02475). "corrected": one key and value,
            and q - exp(D) k for q before the norm, D learned per head (Momentum DeltaNet,
            2605.05838).
        gates: how learned gates are computed from the token. "plain": each has a projection of its
            own. "angle": an angle from the rate divides 1 between the update's rate and the decay
            (Momentum DeltaNet, 2605.05838); see `AngleGates`. "scaled": log decays are times
            exp(A), A learned per head, 0 at the start (Mamba, 2312.00752); see `ScaledDecays`.
        decay_power: > 0, a constant by which log decays are multiplied (GLA, 2312.06635, has 1/16).
        rate_bias: whether the projection of a learned rate has a bias, which starts at the rate's
            initial value; without one the rate starts in the middle of its range.
        mimo: R >= 1, keys, values and queries of a token (multiple inputs, multiple outputs;
            Mamba-3, 2603.15569); see `miras.layers.mimo`. One rate serves all R. With more than 1
            the layer takes plain keys. 1 for a single input and output.
        rope: rotary embedding of q and k (2104.09864), for attention. With a memory that is not
            attention it rotates the keys that are written and the queries that are read.
        rope_base: its largest wavelength over 2 pi, > 1.
        rope_share: the share of a head's channels, from the first, that it rotates, in (0, 1].
        rope_angles: "position": the angle of a pair of channels is its frequency times the
            position. "cumulative": each token turns it further, by pi tanh(x W) eta_t, where eta_t
            is the token's rate (Mamba-3, 2603.15569); a document begins at angle 0. `rope_base` is
            then not used.
        gate_rank: rank of the projections of gates per channel, >= 1; MIRAS uses 32 to 64.
        kv_heads: number of heads of keys and values, >= 1 (grouped queries, 2305.13245): each
            serves heads / kv_heads neighbouring heads of queries. There are as many memories, with
            gates of their own, each read by these queries. None for as many as of queries.
        key_width: of a head's queries and keys, >= 1; None for width / heads.
        value_width: of a head's values and reads, >= 1; None for width / heads.
        key_heads: number of heads of queries and keys, a divisor of the heads of a memory: each
            serves heads / key_heads neighbouring heads of values, with a memory of their own each
            (the groups of Mamba-2, 2405.21060); None for as many.
        initial: what memories hold before the first token: "learned", parameters; "zero", nothing.
        output_norm: RMSNorm on the memory's output.
        output_norm_over: what that norm and its learned scale are of. "head": each head with a
            scale of its own. "shared": each head, all with one scale. "group": the heads that share
            a head of keys (`key_heads`), together, with a scale for each of their channels.
        output_eps: added to its mean square, > 0.
        output_gate: multiply the memory's output by silu(x @ W).
        output_gate_by: "silu", or "sigmoid" in its place, or "none" for x @ W itself.
        output_order: "norm_first" multiplies the normalised output by the gate; "gate_first"
            normalises the product (Mamba-2, 2405.21060).
        decay_by_depth: multiply log decays by 1 - l / (L - 1) + 1e-5 in layer l of L, so that later
            layers forget less (Lightning Attention, 2401.04658).
        skip: add a multiple of the value to what is read, learned per head, 1 at the start (the D
            of Mamba, 2312.00752).
        lr_by_position: divide eta_t by 1 + the token's position in its chunk, with a learned
            correction per position. TTT's official code (2407.04620) instead scales the sum of a
            chunk's steps by the position of the token that reads it: see `miras.optim.GD.averaged`.
        token_shift: make queries, keys, values, gates and the output gate of the token mixed with
            the one before it, each in shares of its own (RWKV, 2503.14456); see `TokenShift`.
        value_residual: mix the values with those of the model's first layer (2410.17897, with
            shares per token and channel as in RWKV-7); see `ValueResidual`. The first letter of the
            pattern must have it, too.
        value_rank: rank of the projection of these shares, >= 1; None for `gate_rank`.
        rate_rank: rank of the projection of the rates of keys "rwkv7", >= 1; None for `gate_rank`.
        erase_eps: added to the squared norm of the erased keys of keys "rwkv7", > 0.
        gate_activation: "tanh" between the two factors of a gate's projection per channel, or None.
        decay_bound: c > 0 for log decays -c sigmoid(-z) in (-c, 0), in place of log sigmoid(z), of
            a projection z (RWKV-7 has c = exp(-1/2)); None for the latter.
        bonus: add to the normalised read the token's own value times sum_i u_i q_i k_i, u learned
            per head and channel, 0 at the start (RWKV, 2305.13048); k is the key that is written.
        output_norm_kind: "rms", or "layer" for LayerNorm, with a learned bias per channel.
        output_gate_rank: R >= 1: the output gate's x @ W is sigmoid(x @ A) @ B with a bottleneck
            of R (RWKV-7); None for one matrix.
    """

    conv: int = 4
    activation: Literal["silu"] | None = None
    qk_norm: Literal["l2", "rms", "rms_shared", "rms_all"] | None = "l2"
    qk_bias: bool = added(False)
    keys: Literal["plain", "product", "rwkv7", "comba", "corrected"] = "plain"
    gates: Literal["plain", "angle", "scaled"] = added("plain")
    decay_power: float = added(1.0)
    rate_bias: bool = added(True)
    qk_norm_eps: float = added(1e-5)
    rope_share: float = added(1.0)
    output_gate_by: Literal["silu", "sigmoid", "none"] = added("silu")
    conv_bias: bool = added(False)
    key_width: int | None = added(None)
    value_width: int | None = added(None)
    key_heads: int | None = added(None)
    initial: Literal["learned", "zero"] = added("learned")
    output_norm_over: Literal["head", "shared", "group"] = added("head")
    output_eps: float = added(1e-3)
    output_order: Literal["norm_first", "gate_first"] = added("norm_first")
    mimo: int = added(1)
    rope: bool = False
    rope_base: float = 10000.0
    rope_angles: Literal["position", "cumulative"] = added("position")
    gate_rank: int = 32
    output_norm: bool = True
    output_gate: bool = True
    decay_by_depth: bool = False
    skip: bool = added(False)
    lr_by_position: bool = False
    kv_heads: int | None = added(None)
    token_shift: bool = added(False)
    value_residual: bool = added(False)
    value_rank: int | None = added(None)
    rate_rank: int | None = added(None)
    erase_eps: float = added(1e-6)
    gate_activation: Literal["tanh"] | None = added(None)
    decay_bound: float | None = added(None)
    bonus: bool = added(False)
    output_norm_kind: Literal["rms", "layer"] = added("rms")
    output_gate_rank: int | None = added(None)

    def validate(self) -> None:
        """Check ranges."""
        require(self.conv >= 0, f"layer.conv={self.conv} must not be negative.")
        require(self.mimo >= 1, f"layer.mimo={self.mimo} must be at least 1.")
        require(
            self.mimo == 1 or self.keys == "plain",
            f"layer.mimo={self.mimo} gives a token that many keys, which layer.keys={self.keys!r} "
            "makes by itself: use layer.keys='plain', or layer.mimo=1.",
        )
        require(self.gate_rank >= 1, f"layer.gate_rank={self.gate_rank} must be at least 1.")
        require(self.rope_base > 1, f"layer.rope_base={self.rope_base} must be above 1.")
        check_kv_heads("layer", self.kv_heads)
        check_sizes(self)
        check_streams(self)

    @property
    def separate(self) -> bool:
        """Whether queries, keys and values have projections of their own."""
        sized = any((self.key_width, self.value_width, self.key_heads))
        return sized or self.token_shift or self.value_residual

    def check_rule(self, rule: Rule) -> None:
        """Raise ConfigError if the rule does not support an option of the layer."""
        kinds = rule.kinds()
        angles = self.rope and self.rope_angles == "cumulative"
        require(
            self.kv_heads is None
            or (self.keys == "plain" and self.mimo == 1 and not self.key_heads and not angles),
            f"layer.kv_heads={self.kv_heads} groups queries that read one key and value a token, "
            f"not those of layer.keys={self.keys!r}, layer.mimo={self.mimo}, "
            f"layer.key_heads={self.key_heads} and layer.rope_angles={self.rope_angles!r}: use "
            "layer.keys='plain', layer.mimo=1, layer.key_heads=none and "
            "layer.rope_angles='position', or layer.kv_heads=none.",
        )
        if self.keys not in ("plain", "corrected"):
            require(
                rule.memory.is_linear and rule.algorithm.takes_terms,
                f"layer.keys={self.keys!r} writes several associations per token, or along other "
                "keys than it reads, which needs a linear memory and an algorithm such as gd, not "
                f"{kinds['memory']!r} with {kinds['algorithm']!r}.",
            )
        if self.keys == "product":
            require(
                rule.algorithm.sequential,
                "layer.keys='product' has one key per step: use algorithm 'multi_step'.",
            )
        if self.keys in ("product", "rwkv7", "comba") or self.mimo > 1:
            k_write = self.keys in ("rwkv7", "comba")
            option = f"layer.mimo={self.mimo}" if self.mimo > 1 else f"layer.keys={self.keys!r}"
            for condition in legality.of_call(rule, self.terms(rule), k_write):
                require(condition.legal, f"{option} cannot be used here: {condition.reason}")
        require(
            self.rates(rule) is None or not rule.retention.uses_rate,
            f"layer.keys={self.keys!r} gives each association an lr of its own, and retention "
            f"{kinds['retention']!r} here is computed from one lr a token: use keys 'plain', or a "
            "retention that is not computed from lr, such as 'l2' with discretised=False.",
        )
        check_decays(self, rule)
        if self.gates == "angle":
            for role in ("rate", "update", "decay"):
                found = [gate for gate in rule.gates_of(role) if gate.learned]
                require(
                    [gate.side for gate in found] == ["head"],
                    f"layer.gates='angle' ties the rate, the update's rate and the decay, each one "
                    f"learned gate per head, and {kinds} has no such gate with role {role!r}: use "
                    "layer.gates='plain', or algorithm 'two_rate_momentum' with retention 'l2'.",
                )
        if self.rope and self.rope_angles == "cumulative":
            rate = rule.rate
            require(
                rate is not None and rate.side == "head" and self.rates(rule) is None,
                "layer.rope_angles='cumulative' turns by the rate of a token, one per head, which "
                f"layer.keys={self.keys!r} with {kinds} does not have: use "
                "layer.rope_angles='position', or keys 'plain' with a rate per head.",
            )
        if self.skip:
            require(
                self.rates(rule) is None,
                f"layer.skip=true adds the value of a token, of which layer.keys={self.keys!r} "
                "has several: use keys 'plain', or skip=false.",
            )
        if self.decay_by_depth:
            require(
                any(gate.side == "head" for gate in rule.gates_of("decay")),
                "layer.decay_by_depth needs a retention with a decay per head, such as l2.",
            )
        if self.lr_by_position:
            require(
                any(gate.side == "head" for gate in rule.gates_of("rate")),
                "layer.lr_by_position needs a learning rate per head.",
            )
            require(
                not rule.algorithm.averaged,
                "layer.lr_by_position=true divides each gradient by its position, and "
                f"{kinds['algorithm']}.averaged=true averages all gradients: set one of them to "
                "false.",
            )

    def memories(self, heads: int) -> int:
        """The number of memories that `heads` heads of queries read."""
        return self.kv_heads or heads

    def terms(self, rule: Rule) -> int | None:
        """The size of the keys' axis of associations; None without that axis."""
        return self.mimo if self.mimo > 1 else self.rates(rule)

    def rates(self, rule: Rule) -> int | None:
        """The number of rates of a token, one for each association; None for one that all share."""
        return {"product": rule.algorithm.terms, "rwkv7": 2}.get(self.keys)


@dataclasses.dataclass(frozen=True)
class AttentionConfig(Config):
    """Attention in hybrids, and in Titans' MAC, MAG and MAL.

    Attributes:
        window: number of tokens that a query of sliding-window attention attends to, including its
            own, >= 1; in MAC at most `segment`.
        segment: tokens per segment of MAC, >= 1, a multiple of the memory's chunk.
        persistent: number of learned tokens that every query also attends to (Titans, 2501.00663,
            section 3.3).
        rope_base: largest wavelength of the position embedding over 2 pi, > 1.
        kv_heads: number of heads of keys and values; see `LayerConfig`.
    """

    window: int = 64
    segment: int = 64
    persistent: int = 0
    rope_base: float = 10000.0
    kv_heads: int | None = added(None)

    def validate(self) -> None:
        """Check ranges."""
        check_kv_heads("attention", self.kv_heads)
        for name in ("window", "segment"):
            value = getattr(self, name)
            require(value >= 1, f"attention.{name}={value} must be at least 1.")
        require(
            self.persistent >= 0, f"attention.persistent={self.persistent} must not be negative."
        )
        require(self.rope_base > 1, f"attention.rope_base={self.rope_base} must be above 1.")

    @property
    def layer(self) -> LayerConfig:
        """The layer around the attention: projections and RoPE, as in Llama."""
        return LayerConfig(
            conv=0,
            qk_norm=None,
            rope=True,
            rope_base=self.rope_base,
            kv_heads=self.kv_heads,
            output_norm=False,
            output_gate=False,
        )

    def rule(self, *, windowed: bool = True) -> Rule:
        """The rule of the attention, whose memory is kv."""
        window = self.window if windowed else None
        memory = attention(window=window, persistent=self.persistent)
        return Rule(memory=memory, algorithm=without_steps())
