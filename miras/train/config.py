"""The config of a training run: the model, the data and the outer optimiser.

The fields of the model are in `miras.models`, those of the data in `miras.data`.
"""

import dataclasses
from typing import Literal

from miras.config import Config, FrozenMapping, added, require, without_effect
from miras.config.choices import shown
from miras.data import DataConfig
from miras.models import LanguageModelConfig
from miras.parallel import MeshConfig
from miras.train.loggers.registry import check_name
from miras.train.optimizers import AdamW, Optimizer
from miras.train.profiling import parse_profile


@dataclasses.dataclass(frozen=True)
class TrainConfig(Config):
    """The outer optimiser, and how often a run logs, evaluates and saves.

    The gradient is clipped by its global norm, decoupled weight decay applies to matrices only, and
    the learning rate has a linear warm-up and a schedule.

    Attributes:
        steps: optimiser updates, >= 1.
        learning_rate: the peak, > 0.
        warmup: updates of linear warm-up, in [0, steps); None is 100, or a tenth of `steps` if
            that is less.
        schedule: of the learning rate after the warm-up: "cosine" to a tenth of the peak,
            "constant", or "wsd", constant and then a decay to 0; see `miras.train.schedule`.
        cooldown: updates of the decay of "wsd", >= 1; None is a fifth of `steps`.
        optimizer: adamw, muon, lion, adafactor, or a plugin; see `optimizers`.
        weight_decay: times the learning rate, per update, >= 0.
        beta1: decay of Adam's first moment, in [0, 1); used by adamw, and by muon for
            parameters that are not matrices.
        beta2: decay of Adam's second moment, in [0, 1); as `beta1`.
        clip: largest global norm of the gradient, > 0.
        skip_spikes: an update whose gradient norm is over this many times its running median is
            skipped, > 1; None skips none. See `miras.train.spikes`.
        accumulate: batches of `data.batch` rows per update, >= 1.
        loss_chunk: most tokens of a device whose logits exist at once, >= 1; None chooses 1024, or
            as many as have 2**25 logits. No value depends on it, up to rounding.
        z_loss: coefficient of the mean squared log partition function in the objective, >= 0;
            PaLM (2204.02311) has 1e-4. The reported loss does not contain it.
        eval_every: updates between evaluations on held-out data, >= 1; the last update is always
            evaluated.
        eval_batches: batches per evaluation, >= 1.
        log_every: updates between lines of the log, >= 1.
        health_every: updates between measurements of the memories, >= 1.
        checkpoint_every: updates between checkpoints, >= 1; the first and the last are always
            saved.
        checkpoint_minutes: age in minutes at which the newest checkpoint is followed by another,
            > 0; None is no limit.
        watchdog_minutes: time without the end of a step after which a process writes the stacks of
            its threads and ends with code 75, > 0; None is no limit. It starts after the first
            step; a batch of an evaluation and a checkpoint count as steps.
        logger: jsonl, tensorboard, wandb, trackio or FILE.py:CLASS; None is jsonl, and tensorboard
            if it is installed; see `loggers`.
        profile: steps of which the run writes a trace, as "100:103" for four steps; None for none.
            See `miras.train.profiling`.
        compiler_options: of XLA by name, which are added to those of `miras.train.compiler_options`
            or replace them; the value "" removes one.
        keep: how many of the newest checkpoints are kept, >= 1; with 1, a damaged checkpoint has
            no predecessor.
        seed: of the initial parameters, in [0, 2**32).
        optimizer_dtype: of first moments and momenta: "float32", or "bfloat16", which saves 2 bytes
            per parameter. Second moments are float32: their decays are below bfloat16's precision.
        master: dtype in which parameters are kept between updates: "float32", or "bfloat16", which
            saves 2 bytes per parameter and loses updates below 2**-9 of a parameter.
        reduce: dtype in which the gradients of weights are summed over devices: "float32", or
            "bfloat16", which halves what they send; see `miras.layers.weight_gradients`.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int = 1000
    learning_rate: float = dataclasses.field(default=3e-3, metadata={"also": ("lr",)})
    warmup: int | None = None
    schedule: Literal["cosine", "wsd", "constant"] = added("cosine")
    cooldown: int | None = added(None)
    optimizer: Optimizer = added(AdamW())
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    skip_spikes: float | None = added(None)
    accumulate: int = 1
    loss_chunk: int | None = without_effect(None)
    z_loss: float = added(0.0)
    optimizer_dtype: Literal["float32", "bfloat16"] = added("float32")
    master: Literal["float32", "bfloat16"] = added("float32")
    reduce: Literal["float32", "bfloat16"] = added("float32")
    eval_every: int = 100
    eval_batches: int = 16
    log_every: int = 10
    health_every: int = 100
    checkpoint_every: int = 100
    checkpoint_minutes: float | None = added(15.0)
    watchdog_minutes: float | None = added(30.0)
    logger: tuple[str, ...] | None = added(None)
    profile: str | None = added(None)
    compiler_options: FrozenMapping[str] = without_effect(FrozenMapping())
    keep: int = 3
    seed: int = 0

    def validate(self) -> None:
        """Check the ranges above."""
        at_least_one = (
            "steps",
            "accumulate",
            "eval_every",
            "eval_batches",
            "log_every",
            "health_every",
            "checkpoint_every",
            "keep",
        )
        for name in at_least_one:
            value = getattr(self, name)
            require(value >= 1, f"train.{name}={value} must be at least 1.")
        require(  # optax counts updates in int32
            self.steps < 2**31, f"train.steps={self.steps} must be less than 2**31."
        )
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            require(value > 0, f"train.{name}={value} must be positive.")
        for name in ("checkpoint_minutes", "watchdog_minutes"):
            value = getattr(self, name)
            require(value is None or value > 0, f"train.{name}={value} must be positive, or none.")
        for name in ("weight_decay", "z_loss"):
            value = getattr(self, name)
            require(value >= 0, f"train.{name}={value} must be at least 0.")
        require(
            self.skip_spikes is None or self.skip_spikes > 1,
            f"train.skip_spikes={self.skip_spikes} must be greater than 1, or none.",
        )
        require(
            self.loss_chunk is None or self.loss_chunk >= 1,
            f"train.loss_chunk={self.loss_chunk} must be at least 1, or none.",
        )
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name}={value} must lie in [0, 1).")
        require(
            self.warmup is None or self.warmup >= 0,
            f"train.warmup={self.warmup} must be at least 0, or none.",
        )
        require(
            self.cooldown is None or self.cooldown >= 1,
            f"train.cooldown={self.cooldown} must be at least 1, or none.",
        )
        for name in self.logger or ():
            check_name(name)
        if self.profile is not None:
            parse_profile(self.profile, self.steps)
        require(0 <= self.seed < 2**32, f"train.seed={shown(self.seed)} must lie in [0, 2**32).")

    @property
    def warmup_steps(self) -> int:
        """Updates of linear warm-up: `warmup`, or its default."""
        return min(100, self.steps // 10) if self.warmup is None else self.warmup

    @property
    def cooldown_steps(self) -> int:
        """Updates of the decay of "wsd": `cooldown`, or a fifth of `steps` (2405.18392)."""
        longest = max(1, self.steps - self.warmup_steps)
        return min(max(1, self.steps // 5), longest) if self.cooldown is None else self.cooldown


@dataclasses.dataclass(frozen=True)
class Parent(Config):
    """Another run that provides the initial parameters; the optimiser state is new.

    Attributes:
        run: absolute path of the folder of that run.
        step: of the checkpoint, >= 0.
        partial: whether to take the parameters that fit if others do not.

    Raises:
        ConfigError: the step is negative.
    """

    run: str
    step: int
    partial: bool = False

    def validate(self) -> None:
        """Check the ranges above."""
        require(self.step >= 0, f"parent.step={self.step} must be at least 0.")


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """Everything that determines the outcome of a run; runs of one config are identical.

    Attributes:
        model: the model and its memory rule.
        data: the text, the tokenizer and the shape of a batch.
        train: the optimiser and the intervals.
        parent: the run that provides the initial parameters, if not `train.seed`.
        mesh: the devices that share the work; it changes no number beyond rounding, and may change
            when a run resumes.
    """

    own_levels = 2  # `override` also takes the fields of model, data and train without a prefix

    model: LanguageModelConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    parent: Parent | None = added(None)
    mesh: MeshConfig = added(MeshConfig())
