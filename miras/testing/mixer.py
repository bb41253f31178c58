"""The contract of a token mixer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from miras.mixers import MixerConfig, TokenMixer
from miras.testing.config import check_config
from miras.testing.expect import expect, expect_close, expect_finite, name_of


def check_mixer(
    mixer: TokenMixer | MixerConfig, *, width: int = 8, heads: int = 2, length: int = 10
) -> None:
    """Hold a token mixer to its contract.

    Config and docstring; the output's shape; the state's shapes are those of `init_state`, and can
    be had without computing; no output depends on a later token; a sequence that is cut anywhere,
    and one that is read token by token, give what the whole gives; documents of a row are those of
    rows of their own, wherever they begin and where they are promised to begin; padding is not
    seen; values and gradients are finite, in bfloat16 too; parameters name their axes.

    Args:
        mixer: the config object; with a rule and options of its own if it is a `MixerConfig`.
        width: of the tokens.
        heads: H.
        length: number of tokens T, even, at least 6; more where segments need it.

    Raises:
        AssertionError: saying what is broken.
    """
    config = mixer if isinstance(mixer, MixerConfig) else MixerConfig(mixer=mixer, chunk=4)
    check_config(config.mixer, TokenMixer)
    config.check("model.")
    told = name_of(config.mixer)
    with jax.enable_x64(True):
        module = _Moved(config, width, heads)
        align = config.mixer.align(config) or 1
        length = max(length, 2 * (align // 2 + 3))
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, length, width)))
        whole, last = module(x)
        expect(whole.shape == x.shape, f"{told}: y has shape {whole.shape}, not {x.shape}.")
        expect_finite(whole, f"{told}: y")
        _check_state(module, last, told, grows=bool(config.mixer.growth(config, width, heads, 8)))
        _check_cuts(module, x, whole, told)
        changed, _ = module(x.at[:, length // 2].add(1.0))
        before = changed[:, : length // 2], whole[:, : length // 2]
        expect_close(*before, f"{told}: an output depends on a later token")
        _check_documents(module, x, told, align)
        _check_padding(module, x, told)
        gradient = module.gradient(x)
        expect_finite(gradient, f"{told}: the gradient")
    _check_narrow(config, width, heads, told)


class _Moved:
    """The module with its parameters off their start, compiled once for each shape of a call."""

    def __init__(self, config: MixerConfig, width: int, heads: int):
        module = config.build(width, heads, nnx.Rngs(0))
        self.graph, params = nnx.split(module)
        for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
            axes = leaf.get_metadata().get("out_sharding")
            named = axes is not None and len(axes) == leaf[...].ndim
            name = ".".join(map(str, path))
            expect(named, f"{name_of(config.mixer)}: parameter {name} does not name its axes.")
        keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(params))))

        def move(p: Any) -> Any:
            return jnp.asarray(p, jnp.float64) + 0.1 * jax.random.normal(next(keys), p.shape)

        self.params = jax.tree.map(move, params)
        self._run = jax.jit(self._call, static_argnames=("segments_at_chunks",))

    def _call(self, params: Any, x: Any, **call: Any) -> Any:
        return nnx.merge(self.graph, params)(x, **call)[:2]

    def __call__(self, x: Any, **call: Any) -> Any:
        return self._run(self.params, x, **call)

    def init_state(self, batch: int, dtype: Any) -> Any:
        return nnx.merge(self.graph, self.params).init_state(batch, dtype)

    def gradient(self, x: Any) -> Any:
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(self._call(p, x)[0]))))(self.params)


def _check_state(module: _Moved, last: Any, told: str, *, grows: bool) -> None:
    start = jax.eval_shape(lambda: module.init_state(2, jnp.float64))
    same = jax.tree.structure(start) == jax.tree.structure(last)
    expect(same or grows, f"{told}: the state after a call has another structure than init_state.")
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(last)):
        expect(b.shape[:1] == (2,), f"{told}: a leaf of the state is {b.shape}, not [B, ...].")
        expect(
            grows or (a.shape, a.dtype) == (b.shape, b.dtype),
            f"{told}: the state is {b.dtype} {b.shape} after a call, and {a.dtype} {a.shape} "
            "before: it must keep its shapes.",
        )


def _by_token(module: _Moved, x: Any) -> tuple[Any, Any]:
    """The outputs and the state of tokens read one by one: one program for all lengths."""
    state, parts = module.init_state(len(x), x.dtype), []
    for t in range(x.shape[1]):
        y, state = module(x[:, t : t + 1], state=state)
        parts.append(y)
    return jnp.concatenate(parts, axis=1), state


def _check_cuts(module: _Moved, x: Any, whole: Any, told: str) -> None:
    half = x.shape[1] // 2
    first, state = module(x[:, :half], state=module.init_state(len(x), x.dtype))
    second, _ = module(x[:, half:], state=state)
    halves = jnp.concatenate([first, second], axis=1)
    expect_close(halves, whole, f"{told}: a sequence cut at {half} is not the whole one")
    by_token, _ = _by_token(module, x)
    expect_close(by_token, whole, f"{told}: a sequence cut at every token is not the whole one")


def _check_documents(module: _Moved, x: Any, told: str, align: int) -> None:
    length = x.shape[1]
    for edge in sorted({3, align}):
        ids = jnp.broadcast_to(jnp.where(jnp.arange(length) < edge, 1, 2), x.shape[:2])
        alone = [_by_token(module, part)[0] for part in (x[:, :edge], x[:, edge:])]
        both = jnp.concatenate(alone, axis=1)
        packed, _ = module(x, segment_ids=ids)
        expect_close(packed, both, f"{told}: documents that begin at 0 and {edge} see each other")
        if edge == align:
            packed, _ = module(x, segment_ids=ids, segments_at_chunks=True)
            expect_close(packed, both, f"{told}: documents at multiples of {align} see each other")


def _check_padding(module: _Moved, x: Any, told: str) -> None:
    own = np.ones(x.shape[1], bool)
    own[1:3] = False
    mask = jnp.broadcast_to(jnp.asarray(own), x.shape[:2])
    want, after = _by_token(module, x[:, own])
    spoilt = jnp.where(mask[..., None], x, 7.0)
    got, state = module(spoilt, mask=mask, state=module.init_state(len(x), x.dtype))
    expect_close(got[:, own], want, f"{told}: padding changes the other tokens' outputs")
    expect(not jnp.any(got[:, ~own]), f"{told}: outputs at padding are not 0.")
    following = module(x[:, :1], state=state)[0], module(x[:, :1], state=after)[0]
    expect_close(*following, f"{told}: padding changes the state")


def _check_narrow(config: MixerConfig, width: int, heads: int, told: str) -> None:
    module = config.build(width, heads, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, width)), jnp.bfloat16)
    graph, params = nnx.split(module)
    y = jax.jit(lambda params: nnx.merge(graph, params)(x)[0])(params)
    expect(y.dtype == jnp.bfloat16, f"{told}: y has dtype {y.dtype} for x of bfloat16.")
    expect_finite(y, f"{told} in bfloat16")
