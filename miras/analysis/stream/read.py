"""Reads any number of tokens with a model, piece by piece, and measures the loss by position.

Memory holds the model's state, one piece of tokens, and the sums of each bucket of positions.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from miras.array_typing import Array
from miras.attention.cache import reserve
from miras.config import require
from miras.errors import ConfigError
from miras.models import Health, LanguageModel, Session
from miras.models.language_model import check_state, check_tokens

PIECE = 1024  # tokens per call, rounded up to whole chunks or segments


@dataclasses.dataclass
class Bucket:
    """Sums over the targets at positions [first, last).

    Attributes:
        first: position of the first target, counted from 1.
        last: one past the position of the last target.
        targets: number of targets so far.
        nats: their loss.
        bytes: bytes of text that they encode.
        health: for each measure and gate, the sum over targets of its mean over layers in the call
            that read the target.
    """

    first: int
    last: int
    targets: int = 0
    nats: float = 0.0
    bytes: float = 0.0
    health: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / max(self.targets, 1)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text, which does not depend on the tokenizer."""
        return self.nats / math.log(2) / max(self.bytes, 1)

    def mean(self, name: str) -> float:
        """The mean of a measure of health over the targets."""
        return self.health.get(name, math.nan) / max(self.targets, 1)


@dataclasses.dataclass
class StreamResult:
    """The result of reading a text.

    Attributes:
        buckets: of positions up to 1,024, 2,048, 4,096 and so on.
        session: the model's state after the text.
    """

    buckets: list[Bucket]
    session: Session


def read_stream(
    model: LanguageModel,
    tokens: Iterable[np.ndarray],
    byte_lengths: np.ndarray,
    *,
    piece: int = PIECE,
    session: Session | None = None,
    buckets: Sequence[Bucket] = (),
    progress: Callable[[int, Bucket], None] = lambda count, bucket: None,
    checkpoint: Callable[[StreamResult], None] = lambda result: None,
) -> StreamResult:
    """Read a text in constant memory, and measure its loss and the memories' health by position.

    Args:
        model: the language model.
        tokens: the text's ids, in int arrays [n] of any length; the first id is the document start
            unless a session is continued.
        byte_lengths: [vocab], bytes of each token.
        piece: tokens per call; rounded up to whole chunks, or to MAC's segments.
        session: to continue; positions continue, too.
        buckets: measurements of the part of this text that has been read before.
        progress: called after each piece with the number of tokens read and the current bucket.
        checkpoint: called after each piece with the result so far, to save it or to stop.

    Raises:
        ConfigError: for a text without tokens, or a loss that is not finite.
    """
    align = model.config.align
    piece = -(-piece // align) * align
    graph, params = nnx.split(model)
    if session is None:
        session = Session(model.init_state(1), jnp.zeros((1, model.config.vocab)), 0)
    check_state(model, session.state)
    state, logits, count = session
    before, buckets = count, [dataclasses.replace(b, health=dict(b.health)) for b in buckets]
    for ids in _pieces(tokens, piece):
        check_tokens(jnp.asarray(ids[None]), model.config.vocab)
        first = logits
        state, every, logits, health = _step(graph, params, reserve(state, len(ids)), ids)
        own = slice(0 if count else 1, None)  # no logits predict the document start
        losses = np.asarray(_losses(first, every, ids))[own]
        _add(buckets, max(count, 1), losses, byte_lengths[ids[own]], health)
        count += len(ids)
        require(
            not buckets or math.isfinite(buckets[-1].nats),
            f"the loss is not finite after {count} tokens, since the memories overflow on this "
            "text: train the run longer, or with a lower inner learning rate.",
        )
        progress(count, buckets[-1] if buckets else Bucket(1, 2))
        checkpoint(StreamResult(buckets, Session(state, logits, count)))
    if count == before and not buckets:
        raise ConfigError("the text has no tokens: give a text that is not empty.")
    return StreamResult(buckets, Session(state, logits, count))


@functools.partial(jax.jit, static_argnums=0)
def _step(graph, params, state, inputs: Array):
    logits, state, health = nnx.merge(graph, params).observe(inputs[None], state=state)
    return state, logits[0], logits[:, -1], health


@jax.jit
def _losses(first: Array, logits: Array, ids: Array) -> Array:
    """The loss of each id under the logits before it; `first` are those of the first id."""
    before = jnp.concatenate([first, logits[:-1]])
    return optax.softmax_cross_entropy_with_integer_labels(before, ids)


def _pieces(tokens: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Arrays of `size` ids; the last may be shorter."""
    held = np.zeros(0, np.int32)
    for more in tokens:
        held = np.concatenate([held, np.asarray(more, np.int32)])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held


def _add(
    buckets: list[Bucket], first: int, losses: np.ndarray, lengths: np.ndarray, health: Health
) -> None:
    """Add the targets from position `first` on to the buckets of their positions."""
    measures = health._asdict()
    gates = measures.pop("gates")
    means = {name: float(jnp.mean(value)) for name, value in measures.items()}
    means |= {name: float(jnp.nanmean(value)) for name, value in gates.items()}
    done = 0
    while done < len(losses):
        position = first + done
        if not buckets or position >= buckets[-1].last:
            last = PIECE
            while last <= position:
                last *= 2
            buckets.append(Bucket(position, last))
        bucket = buckets[-1]
        part = slice(done, done + min(len(losses) - done, bucket.last - position))
        bucket.targets += len(losses[part])
        bucket.nats += float(losses[part].sum(dtype=np.float64))
        bucket.bytes += float(lengths[part].sum(dtype=np.float64))
        for name, mean in means.items():
            bucket.health[name] = bucket.health.get(name, 0.0) + mean * len(losses[part])
        done = part.stop
