"""Masks: a row with masked tokens is the row without them, wherever they stand.

Every preset's model is held to the same in tests/models/test_language_model.py.
"""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import miras
from miras.testing import random_inputs
from miras.testing.expect import expect_close
from miras.testing.inputs import scan_with_loss
from tests import selection

# Padding in front, behind, in the middle, and a row of nothing else.
MASKS = np.array(
    [
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1],
        [0] * 11,
    ],
    bool,
)
ROWS, T = MASKS.shape
# Segments that go on from the state's 0, change inside a chunk, and are other ones where masked.
IDS = np.where(MASKS, 3 * (np.cumsum(MASKS, axis=1) > 4), 8)
PRESETS = (
    "yaad", "memora", "titans_lmm", "lact", "atlas", "mesa", "gated_deltanet", "rwkv7",
    "ttt_linear", "transformer", "sliding_window",
)  # fmt: skip


def own(x):
    """The tokens that are there, of the rows that have any: as many in each."""
    return np.stack([row[mask] for row, mask in zip(x, MASKS[:-1])])


def arrays(name):
    config = miras.preset(name)
    rule = config.rule
    if name == "sliding_window":
        rule = miras.override(rule, "memory.window=4")
    inputs = random_inputs(rule, B=ROWS, T=T, dk=2, terms=config.layer.terms(rule))
    streams = {"q": inputs.q, "k": inputs.k, "v": inputs.v, "gates": inputs.gates}
    if config.layer.keys == "rwkv7":
        streams["k_write"] = np.random.default_rng(1).normal(size=inputs.k.shape)
    run = functools.partial(scan_with_loss, rule, inputs.W0, chunk=4, exact=config.exact)
    return run, streams


def kept(state):
    """What a state holds, of attention up to the places that rows fill."""
    if hasattr(state, "A"):
        return state
    length = int(jnp.max(state.length))
    return {name: getattr(state, name)[:, :length] for name in ("k", "v", "visible", "segment")}


CASES = {f"{name}-True": (name, True) for name in PRESETS}
CASES |= {f"{name}-False": (name, False) for name in ("yaad", "gated_deltanet")}
# A solve without segments, momentum, a link per token, and attention to a window.
SAMPLE = {"gated_deltanet-False", "titans_lmm-True", "memora-True", "sliding_window-True"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "segments"), selection.sampled_values(CASES, SAMPLE))
@pytest.mark.usefixtures("float64")
def test_a_row_is_the_row_without_its_masked_tokens(name, segments):
    """Outputs, losses, states and gradients, from a state inside a chunk; NaN where masked."""
    run, streams = arrays(name)
    with_ids = {"segment_ids": jnp.asarray(IDS)} if segments else {}
    own_ids = {"segment_ids": jnp.asarray(own(IDS))} if segments else {}
    _, state, _ = run(**jax.tree.map(lambda x: x[:, :3], streams))

    @functools.partial(jax.jit, static_argnums=2)
    def found(streams, state, backend, labels, weight):
        def total(streams):
            y, end, loss = run(**streams, state=state, backend=backend, **labels)
            return jnp.sum(jnp.sin(y) * weight), (y, loss, end)

        return jax.value_and_grad(total, has_aux=True)(streams)

    weight = np.random.default_rng(2).normal(size=(ROWS, T, 1, 1))
    (_, want), gradients = found(
        jax.tree.map(own, streams), jax.tree.map(lambda x: x[:-1], state), "reference", own_ids,
        own(weight),
    )  # fmt: skip

    def spoiled(x):
        return np.where(MASKS.reshape(ROWS, T, *[1] * (x.ndim - 2)), x, np.nan)

    for backend in ("xla", "reference"):
        labels = {"mask": jnp.asarray(MASKS), **with_ids}
        (_, got), gradient = found(jax.tree.map(spoiled, streams), state, backend, labels, weight)
        y, loss, end = got
        here = jax.tree.map(own, (y, loss)), kept(jax.tree.map(lambda x: x[:-1], end))
        expect_close(here, ((want[0], want[1]), kept(want[2])), f"{name} by {backend}")
        expect_close(jax.tree.map(own, gradient), gradients, f"{name} by {backend}: gradients")
        for x in (y, loss, *jax.tree.leaves(gradient)):
            assert not np.any(np.asarray(x)[~MASKS])
        nothing = kept(jax.tree.map(lambda x: x[-1:], (end if hasattr(end, "A") else state)))
        before = kept(jax.tree.map(lambda x: x[-1:], state))
        jax.tree.map(np.testing.assert_array_equal, nothing, before)


RULE = miras.Rule("mlp", "l2", {"kind": "kl", "link_every": "chunk"}, "momentum")


@functools.cache
def programs():
    """One for masked rows, one for a token alone."""
    run = functools.partial(miras.scan, RULE, chunk=4)
    return jax.jit(run), jax.jit(run)


@pytest.mark.slow
@hypothesis.settings(max_examples=10, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_mask_and_any_segments_in_several_calls(data):
    """Against the row's own tokens, one at a time."""
    flags = data.draw(st.lists(st.booleans(), min_size=18, max_size=18))
    ids = data.draw(st.lists(st.integers(0, 1), min_size=18, max_size=18))
    mask, ids = np.array([flags]), np.array([ids])
    masked, single = programs()
    with jax.enable_x64(True):
        W0, *streams = random_inputs(RULE, T=18, H=1)
        state = after = miras.scan(RULE, W0, *_cut(streams, 0, 1), chunk=4)[1]
        for start in (0, 9):
            now = slice(start, start + 9)
            labels = {"mask": mask[:, now], "segment_ids": ids[:, now]}
            y, state = masked(W0, *_cut(streams, start, start + 9), state=state, **labels)
            want = np.zeros(y.shape)
            for t in np.flatnonzero(mask[0, now]) + start:
                y_t, after = single(
                    W0, *_cut(streams, t, t + 1), state=after, segment_ids=ids[:, t : t + 1]
                )
                want[:, t - start] = y_t[:, 0]
            np.testing.assert_allclose(y, want, rtol=1e-9, atol=1e-10)
            expect_close(state, after, "the state")


def _cut(streams, start, stop):
    return jax.tree.map(lambda x: x[:, start:stop], streams)


def test_one_program_for_all_masks():
    W0, *streams = random_inputs(RULE, T=6, H=1, dtype=np.float32)
    program = jax.jit(functools.partial(miras.scan, RULE, W0, *streams, chunk=4))
    for mask in (np.ones((1, 6), bool), np.zeros((1, 6), bool), np.arange(6)[None] > 2):
        program(mask=mask)
    assert program._cache_size() == 1
