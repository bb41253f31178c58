"""Reading: tokens of any number through a model, piece by piece, and what is measured on the way.

What is kept is the model's state, one piece of tokens, and the sums of each bucket of positions.
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

PIECE = 1024  # tokens of a call, rounded to whole chunks or segments


@dataclasses.dataclass
class Bucket:
    """Sums over the targets at positions [first, last), and of the health of reading them.

    Attributes:
        first: position of the first target, counted from 1.
        last: behind the last.
        targets: how many were read.
        nats: their loss.
        bytes: of text that they stand for.
        health: by measure, of the call that read each target, averaged over layers; gates by
            their names.
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
        """Which does not depend on the tokenizer."""
        return self.nats / math.log(2) / max(self.bytes, 1)

    def mean(self, name: str) -> float:
        """A measure of health."""
        return self.health.get(name, math.nan) / max(self.targets, 1)


@dataclasses.dataclass
class Reading:
    """What reading found.

    Attributes:
        buckets: of positions, up to 1,024, 2,048, 4,096 and so on.
        session: where the model stands at the end.
    """

    buckets: list[Bucket]
    session: Session


def read(
    model: LanguageModel,
    tokens: Iterable[np.ndarray],
    byte_lengths: np.ndarray,
    *,
    piece: int = PIECE,
    session: Session | None = None,
    buckets: Sequence[Bucket] = (),
    tell: Callable[[int, Bucket], None] = lambda read, bucket: None,
    keep: Callable[[Reading], None] = lambda reading: None,
) -> Reading:
    """Read a text.

    Args:
        model: the language model.
        tokens: the text's ids, in arrays [n] of any length; the first is the document start, but
            where a session goes on.
        byte_lengths: [vocab], of the tokenizer.
        piece: tokens of a call; rounded up to whole chunks, or segments of MAC.
        session: where to go on from; positions go on, too.
        buckets: what was measured of this text before, where a reading goes on.
        tell: called after each piece with the tokens read so far and the current bucket.
        keep: called after each piece with what was found so far, to save it or to stop.

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
        foretold = logits
        state, every, logits, health = _step(graph, params, reserve(state, len(ids)), ids)
        own = slice(0 if count else 1, None)  # nothing foretells the document start
        losses = np.asarray(_losses(foretold, every, ids))[own]
        _add(buckets, max(count, 1), losses, byte_lengths[ids[own]], health)
        count += len(ids)
        require(
            not buckets or math.isfinite(buckets[-1].nats),
            f"the loss is not finite behind {count} tokens: the run's memories overflow on this "
            "text, so train it longer, or at a lower rate.",
        )
        tell(count, buckets[-1] if buckets else Bucket(1, 2))
        keep(Reading(buckets, Session(state, logits, count)))
    if count == before and not buckets:
        raise ConfigError("the text has no tokens: give one that is not empty.")
    return Reading(buckets, Session(state, logits, count))


@functools.partial(jax.jit, static_argnums=0)
def _step(graph, params, state, inputs: Array):
    logits, state, health = nnx.merge(graph, params).observe(inputs[None], state=state)
    return state, logits[0], logits[:, -1], health


@jax.jit
def _losses(foretold: Array, logits: Array, ids: Array) -> Array:
    """Of each token by the logits before it."""
    before = jnp.concatenate([foretold, logits[:-1]])
    return optax.softmax_cross_entropy_with_integer_labels(before, ids)


def _pieces(tokens: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Arrays of `size` ids, and of what is left."""
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
    """Put the targets from position `first` on into the buckets of their positions."""
    measures = health._asdict()
    gates = measures.pop("gates")
    means = {name: float(jnp.mean(value)) for name, value in (measures | gates).items()}
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
