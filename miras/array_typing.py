"""The glossary of shapes as jaxtyping aliases, and `typed`, which checks a function against them.

B batch, T time, H heads, K heads of keys and values (H, but a divisor of it in attention with
grouped heads), R associations per token (an axis that only some rules have), N reads per token (an
axis that only some calls have), C tokens of a chunk,
Dk key and query width, Dv value width, V vocabulary. Fast weights are dicts from a
weight's name to [in, out] or [out]; `scan` takes them with a leading [H] or [B, H].
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, jaxtyped

from miras.errors import ConfigError

Queries = Float[Array, "B T H *N Dk"]
Keys = Float[Array, "B T K *R Dk"]
Values = Float[Array, "B T K *R Dv"]
Gates = dict[str, Float[Array, "B T H ..."]]  # per head, or per channel or association of a head
Mask = Bool[Array, "B T"]
SegmentIds = Integer[Array, "B T"]

TokenIds = Integer[Array, "B T"]
Logits = Float[Array, "B V"]  # of one token of each row
RowIntegers = Integer[Array, " B"]  # a token, a length or a position of each row
RowMask = Bool[Array, " B"]
Positions = Integer[Array, "B T"]
HeadVectors = Float[Array, "B T H D"]
Floats = Float[Array, "..."]

Tokens = Float[Array, "C D"]  # one head's keys, queries, values or layer inputs in a chunk
PerToken = Float[Array, " C"]  # one head's gate in a chunk
Leaf = Float[Array, "..."]  # one weight: [in, out] or [out]
Weights = dict[str, Leaf]  # W, A or S

P = ParamSpec("P")
R = TypeVar("R")


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: check a function's arrays against its annotations, when it is called or traced.

    Annotated are arguments and results of jaxtyping types, alone, in a union with None, or as the
    values of a dict. Sizes named alike must be equal over the whole call. An argument may be a
    NumPy array where a jax array is annotated; other annotations and values are not checked. The
    function's own checks run first, and their errors take precedence. Compiled code contains no
    checks. Do not use it on the methods of NNX modules.

    Raises:
        ConfigError: naming the argument, its shape and dtype, and the shape that it must have.
    """
    signature = inspect.signature(function)
    hints = {name: p.annotation for name, p in signature.parameters.items()}
    result_hint = signature.return_annotation

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        def check(error: Exception | None = None, **result: Any) -> None:
            with jaxtyped("context"):
                for name, value in signature.bind(*args, **kwargs).arguments.items():
                    _check(function.__qualname__, name, value, hints[name], error)
                for name, value in result.items():
                    _check(function.__qualname__, name, value, result_hint, error)

        try:
            result = function(*args, **kwargs)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:  # as jax raises for shapes that do not fit
            check(error)
            raise
        check(result=result)
        return result

    return checked


def _check(function: str, name: str, value: Any, hint: Any, error: Exception | None) -> None:
    for path, array, expected in _arrays(name, value, hint):
        if isinstance(array, np.ndarray):
            expected = expected.dtype[np.ndarray, expected.dim_str]
        if not isinstance(array, expected):
            raise ConfigError(
                f"{function}: {path} has shape {array.shape} and dtype {array.dtype}: it must be "
                f"{expected.dtype.__name__}[{expected.dim_str.strip()}], with the sizes of the "
                "other arrays."
            ) from error


def _arrays(path: str, value: Any, hint: Any) -> Iterator[tuple[str, Any, Any]]:
    """The arrays in a value that have a jaxtyping annotation: path, array, annotation."""
    if isinstance(hint, type) and hasattr(hint, "dim_str"):
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            yield path, value, hint
    elif typing.get_origin(hint) in (typing.Union, types.UnionType) and value is not None:
        alternatives = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(alternatives) == 1:
            yield from _arrays(path, value, alternatives[0])
    elif typing.get_origin(hint) is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _arrays(f"{path}[{key!r}]", item, typing.get_args(hint)[1])
    elif typing.get_origin(hint) is tuple and isinstance(value, tuple):
        parts = typing.get_args(hint)
        if len(parts) == len(value):
            for n, (item, part) in enumerate(zip(value, parts)):
                yield from _arrays(f"{path}[{n}]", item, part)


__all__ = [
    "Array",
    "Bool",
    "Float",
    "Floats",
    "Gates",
    "HeadVectors",
    "Int",
    "Keys",
    "Leaf",
    "Logits",
    "Mask",
    "PerToken",
    "Positions",
    "Queries",
    "RowIntegers",
    "RowMask",
    "SegmentIds",
    "TokenIds",
    "Tokens",
    "Values",
    "Weights",
    "typed",
]
