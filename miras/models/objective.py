"""Objective: what a run trains and measures, as the training loop sees it.

The objective of text is in `miras.train.language_modelling`; those of tasks are beside the tasks.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import jax.numpy as jnp
from flax import nnx

from miras.array_typing import Array
from miras.errors import ConfigError
from miras.layers import Health

if TYPE_CHECKING:
    from miras.models.config import LanguageModelConfig

Batch = Mapping[str, Any]  # numpy or jax arrays, the rows of a batch first


class Totals(NamedTuple):
    """Sums over targets, which can be added over batches.

    Attributes:
        nats: the loss: the negative log likelihood of tokens and classes, or the squared error of
            values.
        targets: number of targets.
        bytes: bytes of text that the targets represent; 0 if they are not text.
    """

    nats: Array | float
    targets: Array | float
    bytes: Array | float


class LossOptions(NamedTuple):
    """How a loss is computed, a static argument; an objective may have no use for an option.

    Attributes:
        chunk: most tokens of a device whose logits exist at once; None chooses it, see
            `miras.train.token_chunks.chunks_of`.
        z_loss: coefficient of the squared log partition function.
        reduce: dtype in which the head's gradient is summed over devices.
    """

    chunk: int | None = None
    z_loss: float = 0.0
    reduce: str = "float32"


PLAIN_LOSS = LossOptions()


class Head(NamedTuple):
    """What a model computes outside of its blocks, by which a run's FLOPs and memory are counted.

    The head maps `inputs` channels to `outputs` numbers: once for each token, or once for a row.

    Attributes:
        inputs: channels that the head reads, >= 1.
        outputs: numbers that it returns, >= 1.
        by_token: whether it reads each token alone, as that of a vocabulary does: its outputs exist
            for a chunk of tokens at a time (`LossOptions.chunk`), and the mesh axis `tensor` splits
            them. Otherwise it reads a row once.
        others: FLOPs of all other matrix products outside of the blocks, in the forward pass of a
            row, >= 0; a multiply-add counts as two.
        masked: whether the blocks get a mask of the tokens, with which attention is not fused.
    """

    inputs: int
    outputs: int
    by_token: bool
    others: float = 0.0
    masked: bool = False

    def flops(self, tokens: int) -> float:
        """FLOPs of the forward pass of a row of so many tokens."""
        return 2.0 * self.inputs * self.outputs * (tokens if self.by_token else 1) + self.others


class Score(NamedTuple):
    """A number of a held-out evaluation, by which models are compared.

    Attributes:
        field: its name in the evaluation and in files.
        name: in tables and figures.
        less_is_better: whether a smaller value is better.
    """

    field: str
    name: str
    less_is_better: bool


class Evaluation(Protocol):
    """The result of an evaluation on held-out rows: a NamedTuple of numbers with two properties."""

    @property
    def summary(self) -> str:
        """One line for the log."""
        ...

    @property
    def table(self) -> list[tuple[str, str]]:
        """The lines that `miras eval` prints: a name and a value each."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


class Objective:
    """What a run trains and measures: a model, its loss, and its metrics on held-out rows.

    The one training loop, the evaluation, checkpoints and meshes use a run's model through its
    objective alone, so a task with a model of its own changes none of them. To add one:

    1. derive a config from `miras.data.TaskConfig`, which says how rows are made, and return the
       objective from its method `objective`;
    2. derive from this class and implement `build`, `loss`, `sums` and `result`;
    3. for `miras plan`, and for the FLOPs in tables of `miras ablate`, implement `head`.

    A model is an `nnx.Module` whose parameters name their logical axes (`miras.layers.param`), by
    which any mesh splits them. It has its blocks from `miras.models.backbone.Backbone`, and its
    method `observe` takes the arguments of `LanguageModel.observe`; otherwise `observe` below is
    overridden. Everything is a sum over rows: the last batch of a pass is filled up with rows of
    zeros, which must not count (a field such as `mask` says so), and batches are added.

    Attributes:
        score: of the result of an evaluation, by which `miras ablate` compares runs.
        curve: what `plot.png` and the log have of training and of held-out rows: "loss", or
            "bits_per_byte" where targets are text.
        label: of the curve's axis.
        rows: what rows are called: "text", "answers".
        prints_bits: whether the log has bits per byte beside the loss.
        ends: names of the model's parameters that belong to what it is trained for, such as its
            head. With `--from`, they are new if the other run was trained for something else.
    """

    score: ClassVar[Score]
    curve: ClassVar[str] = "loss"
    label: ClassVar[str] = "loss"
    rows: ClassVar[str] = "rows"
    prints_bits: ClassVar[bool] = False
    ends: ClassVar[tuple[str, ...]] = ()

    def build(self, config: "LanguageModelConfig", rngs: nnx.Rngs) -> nnx.Module:
        """The model, with new parameters.

        Args:
            config: of the blocks: a run's `model`.
            rngs: stream `params`.
        """
        raise NotImplementedError

    def head(self, config: "LanguageModelConfig", tokens: int) -> Head:
        """What the model of `build` computes outside of its blocks.

        Args:
            config: of the blocks.
            tokens: of a row, that the blocks read.

        Raises:
            ConfigError: the objective does not say; such a run trains, and is not planned.
        """
        raise ConfigError(
            f"{type(self).__name__} does not say what its model computes outside of the blocks, so "
            "that its FLOPs and memory are not known: implement its method `head`."
        )

    def loss(
        self, model: Any, batch: Batch, options: LossOptions = PLAIN_LOSS
    ) -> tuple[Array, Totals]:
        """The objective summed over a batch's targets, which is differentiated, and the totals."""
        raise NotImplementedError

    def sums(self, model: Any, batch: Batch) -> Any:
        """What an evaluation sums over batches: a NamedTuple of scalars."""
        raise NotImplementedError

    def result(self, sums: Any) -> Evaluation:
        """The evaluation from the sums over all batches, floats."""
        raise NotImplementedError

    def observe(self, model: Any, batch: Batch) -> Health:
        """Measurements of the memories on a batch, [memory layers] each."""
        ids = batch["segment_ids"]
        return model.observe(batch["inputs"], segment_ids=ids, segments_at_chunks=True)[2]

    def tokens(self, batches: Batch) -> Array:
        """The number of tokens that the blocks read of batches, int32."""
        return jnp.count_nonzero(batches["segment_ids"])
