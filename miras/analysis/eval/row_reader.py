"""Reads batches of rows of any length in few compiled shapes, on one device or on a mesh.

A row is read in pieces, and the state is carried from each piece to the next. `continuations` and
`completions` use it, and so does the perplexity of a text.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from miras.analysis.eval.answers import piece_length, rows_per_batch
from miras.array_typing import Array
from miras.attention.cache import reserve
from miras.config import require
from miras.errors import ConfigError
from miras.models import LanguageModel, ModelState, score
from miras.parallel import make_mesh
from miras.runtime import signals
from miras.train import Run, RunConfig
from miras.train.optimizer import axis_names
from miras.train.sharding import state_shardings
from miras.train.state import TrainState

_SHORTEST = 16  # tokens of the shortest piece


class ReadRows(NamedTuple):
    """Rows that were read.

    Attributes:
        logprobs: of the tokens of each row, float32 [length], as in `miras.models.Scored`.
        greedy: for each row, whether all of its tokens are the most likely ones.
        logits: of the token after each row, [rows, vocab].
        state: after each row.
    """

    logprobs: list[np.ndarray]
    greedy: list[bool]
    logits: Array
    state: ModelState


class RowReader:
    """Reads up to `rows` rows at once; compiles once for each of a few lengths of a piece.

    Args:
        model: the language model.
        rows: of a call, >= 1; on a mesh, rounded up to a multiple of its data * fsdp devices.
        mesh: whose devices split the rows and the parameters; one device if not given.
    """

    def __init__(self, model: LanguageModel, rows: int, mesh: Mesh | None = None) -> None:
        require(rows >= 1, f"rows={rows} must be at least 1.")
        self.mesh = mesh
        if mesh is not None:
            parts = mesh.shape["data"] * mesh.shape["fsdp"]
            rows = -(-rows // parts) * parts
            model = _placed(model, mesh)
        self.model, self.rows = model, rows
        align = model.config.align
        longest = piece_length(align)
        sizes = [min(-(-_SHORTEST // align) * align, longest)]
        while sizes[-1] < longest:
            sizes.append(min(2 * sizes[-1], longest))
        self.sizes = tuple(sizes)
        """Tokens of a piece: multiples of `config.align` that double, from 16 to about 1000."""

    def read(
        self,
        texts: Sequence[np.ndarray],
        logits: Array | None = None,
        state: ModelState | None = None,
    ) -> ReadRows:
        """Read rows side by side.

        Args:
            texts: at most `rows` int arrays [length], of any lengths.
            logits: of the first token of each row, [rows, vocab]; the log-probability of a row's
                first token is 0 without them.
            state: before the rows, of `rows` rows; the initial one if not given.
        """
        require(len(texts) <= self.rows, f"{len(texts)} rows are more than rows={self.rows}.")
        lengths = np.array([len(text) for text in texts] + [0] * (self.rows - len(texts)))
        longest = int(lengths.max())
        with self.on_mesh():
            before = self.model.init_state(self.rows) if state is None else state
            after: ModelState = self._by_row(reserve(before, longest), axis=1)
            none = jnp.zeros((self.rows, self.model.config.vocab))
            last: Array = self._by_row(none if logits is None else logits)
            found: list[np.ndarray] = []
            greedy = np.ones(self.rows, bool)
            start = 0
            while start < longest:
                signals.check()
                size = next((n for n in self.sizes if n >= longest - start), self.sizes[-1])
                block = np.zeros((self.rows, size), np.int32)
                for row, text in enumerate(texts):
                    part = text[start : start + size]
                    block[row, : len(part)] = part
                own = jnp.asarray(np.clip(lengths - start, 0, size), jnp.int32)
                scored = score(self.model, self._by_row(jnp.asarray(block)), own, after, last)
                last, after = self._by_row(scored.logits), self._by_row(scored.state, axis=1)
                found.append(np.asarray(scored.logprobs))
                greedy &= np.asarray(scored.greedy).all(axis=1)
                start += size
        every = np.concatenate(found, axis=1) if found else np.zeros((self.rows, 0), np.float32)
        rows = range(len(texts))
        each = [every[row, : lengths[row]] for row in rows]
        return ReadRows(each, [bool(greedy[row]) for row in rows], last, after)

    def on_mesh(self) -> contextlib.AbstractContextManager[object]:
        """The context in which the model computes over the devices of the mesh."""
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _by_row(self, arrays: Any, axis: int = 0) -> Any:
        """Arrays with their rows split over the mesh, so that each call has the same shardings."""
        if self.mesh is None:
            return arrays
        spec = PartitionSpec(*(None,) * axis, ("data", "fsdp"))
        return jax.device_put(arrays, NamedSharding(self.mesh, spec))


def make_reader(run: Run, rows: int | None = None) -> RowReader:
    """A reader of a run's model over all devices, with so many rows, or those of its batch."""
    config = run.config
    most = rows_per_batch(piece_length(config.model.align), config.model.vocab)
    return RowReader(run.model, min(rows or config.data.batch, most), _mesh(config))


def _mesh(config: RunConfig) -> Mesh | None:
    """The run's mesh if it fits the devices, else one with all of them along `fsdp`."""
    if len(jax.devices()) == 1:
        return None
    try:
        return make_mesh(config.mesh)
    except ConfigError:
        return make_mesh()


def _placed(model: LanguageModel, mesh: Mesh) -> LanguageModel:
    """The model with its parameters on the devices of a mesh, as in training."""
    graphdef, params = nnx.split(model, nnx.Param)
    arrays = nnx.to_pure_dict(params)
    none = jnp.zeros(())
    shardings = state_shardings(mesh, axis_names(params), TrainState(arrays, (), none, none))
    return nnx.merge(graphdef, jax.device_put(arrays, shardings.params))
