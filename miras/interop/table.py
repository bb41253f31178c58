"""The table of a layout: which published tensor holds which parameter, and in which form.

    parameter = form.load(tensor[rows])          tensor[rows] = form.save(parameter)

A published tensor may hold several parameters in rows of its own, as one projection of queries,
keys and values does.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from miras.errors import ConfigError


class Form(NamedTuple):
    """How a parameter is made of a tensor, and the tensor of the parameter."""

    load: Callable[[np.ndarray], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]


class Entry(NamedTuple):
    """A parameter and the tensor that holds it.

    Attributes:
        tensor: published name.
        parameter: dotted path in the nested parameters, or in those of a block.
        form: how one is made of the other.
        rows: of the tensor; all if None.
    """

    tensor: str
    parameter: str
    form: Form
    rows: np.ndarray | None = None


SAME = Form(lambda w: w, lambda w: w)


def linear(*shape: int) -> Form:
    """A torch weight [out, in] as a kernel [in, *shape], where out = prod(shape)."""
    return Form(lambda w: w.T.reshape(-1, *shape), lambda w: w.reshape(w.shape[0], -1).T)


def reshaped(*shape: int) -> Form:
    """A vector as an array of a shape."""
    return Form(lambda w: w.reshape(shape), lambda w: w.reshape(-1))


def conv(*shape: int) -> Form:
    """A depthwise torch weight [C, 1, K] as [K, *shape]: ours begins with the current token."""
    return Form(
        lambda w: w[:, 0, ::-1].T.reshape(-1, *shape),
        lambda w: w.reshape(w.shape[0], -1).T[:, None, ::-1],
    )


def negated(form: Form) -> Form:
    """The negative of what a form makes."""
    return Form(lambda w: -form.load(w), lambda w: form.save(-w))


def plus_one(form: Form) -> Form:
    """What a form makes of a scale that is published as its difference from 1."""
    return Form(lambda w: 1 + form.load(w), lambda w: form.save(w - 1))


def parts(*sizes: int) -> list[np.ndarray]:
    """The rows of consecutive parts of these sizes."""
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for size, end in zip(sizes, ends)]


def load(entries: Iterable[Entry], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters, float32 by dotted path, of published tensors.

    Raises:
        ConfigError: a tensor is missing, is in no entry, or has another shape.
    """
    rest, found = set(tensors), {}
    for entry in entries:
        if entry.tensor not in tensors:
            raise ConfigError(
                f"the checkpoint has no tensor {entry.tensor!r}: its config.json is of another "
                "model, or a file of it is missing."
            )
        rest.discard(entry.tensor)
        tensor = np.asarray(tensors[entry.tensor], np.float32)
        try:
            rows = tensor if entry.rows is None else tensor[entry.rows]
            found[entry.parameter] = np.asarray(entry.form.load(rows), np.float32)
        except (ValueError, IndexError) as error:
            raise ConfigError(
                f"tensor {entry.tensor!r} has shape {tensor.shape}, which does not fit config.json "
                f"({error}): give the config.json of this checkpoint."
            ) from error
    if rest:
        raise ConfigError(
            f"the checkpoint has {len(rest)} tensors that its model_type does not have, such as "
            f"{min(rest)!r}: its config.json is of another model."
        )
    return found


def save(entries: Iterable[Entry], parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The published tensors, float32, of parameters by dotted path: the inverse of `load`."""
    pieces: dict[str, list[tuple[np.ndarray | None, np.ndarray]]] = {}
    for entry in entries:
        value = np.asarray(entry.form.save(parameters[entry.parameter]), np.float32)
        pieces.setdefault(entry.tensor, []).append((entry.rows, value))
    return {name: _joined(held) for name, held in pieces.items()}


def _joined(held: list[tuple[np.ndarray | None, np.ndarray]]) -> np.ndarray:
    first, value = held[0]
    if first is None:
        return np.ascontiguousarray(value)
    rows = sum(len(at) for at, _ in held if at is not None)
    whole: Any = np.empty((rows, *value.shape[1:]), np.float32)
    for at, part in held:
        whole[at] = part
    return whole
