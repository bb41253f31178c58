"""States of a model: rows of their own length, forks, drafts, sessions on disk."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.analysis.stream.read import _step as read_step
from miras.analysis.stream.read import read_stream
from miras.models import (
    Session,
    decode_step,
    fork,
    generate,
    join,
    load_session,
    prefill,
    put,
    reset,
    save_session,
    score,
    session_format_2,
    steps,
    take,
    verify,
)
from miras.models.scoring import _score
from miras.models.session import fingerprint
from tests.models.rwkv7 import OPTIONS
from tests.models.test_language_model import build, close, forward, tokens

# A memory, one with a convolution and rotations, one whose layers share values and shift tokens,
# Titans' three, a hybrid with attention to all.
KINDS = {
    "titans_lmm": (),
    "transformer": (),
    "titans_mac": ("attention.segment=8", "attention.window=8"),
    "titans_mag": ("attention.window=5",),
    "titans_mal": ("attention.window=5",),
    "rwkv7": OPTIONS,
    "yaad_h": ("pattern=M A", "attention.window=5"),
}
LENGTHS = (3, 11, 6)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n != "titans_lmm")) for n in KINDS],
)
def model(request):
    return build(request.param, *KINDS[request.param])


def mask(length: int) -> jax.Array:
    return jnp.arange(length)[None, :] < jnp.asarray(LENGTHS)[:, None]


def alone(model, x, row):
    """The logits behind a row's own tokens, read alone."""
    return forward(model, x[row : row + 1, : LENGTHS[row]])[0][:, -1]


@pytest.mark.sample(0.05)
def test_rows_of_different_lengths_are_read_as_if_alone(model):
    x = tokens(12, B=3)
    logits, state = prefill(model, x, mask=mask(12))
    close(logits, jnp.concatenate([alone(model, x, row) for row in range(3)]))
    front = jnp.flip(mask(12), axis=1)
    moved = jnp.stack([jnp.roll(row, 12 - n) for row, n in zip(x, LENGTHS)])
    close(prefill(model, moved, mask=front)[0], logits)
    following = x[:, 0]
    logits, _ = decode_step(model, following, state)
    for row, length in enumerate(LENGTHS):
        whole = jnp.append(x[row, :length], following[row])[None]
        close(logits[row], forward(model, whole)[0][0, -1])


@pytest.mark.sample(0.05)
def test_rows_of_any_length_are_scored_in_one_program(model):
    """As a loop over rows and their tokens does, from a text's beginning and behind others."""
    _check_scores(model, None, None)
    _check_scores(model, *prefill(model, tokens(3, B=3, seed=1)))


def _check_scores(model, logits, state):
    x = tokens(9, B=3)
    programs = _score._cache_size()
    for lengths in ((3, 9, 6), (0, 1, 9)):
        behind = jnp.where(jnp.arange(9) < jnp.asarray(lengths)[:, None], x, 99)
        found = score(model, behind, lengths, state, logits)
        after, _ = decode_step(model, x[:, 0], found.state)
        for row, length in enumerate(lengths):
            want, now, before = [], _row(logits, row), None if state is None else take(state, [row])
            for t in range(length):
                nothing = now is None
                want.append(0.0 if nothing else jax.nn.log_softmax(now)[0, x[row, t]])
                one = x[row : row + 1, t]
                before = model.init_state(1) if before is None else before
                now, before = decode_step(model, one, before)
            close(found.logprobs[row], np.pad(np.asarray(want), (0, 9 - length)))
            close(found.logits[row], np.zeros(29) if now is None else now[0])
            before = model.init_state(1) if before is None else before
            close(after[row], decode_step(model, x[row : row + 1, 0], before)[0][0])
    assert _score._cache_size() - programs <= 1


@pytest.mark.sample(0.05)
def test_a_row_that_begins_in_a_later_call_is_scored_as_alone(model):
    """Its first token is taken as given, whether the calls before had none of it or were not."""
    x = tokens(6, B=3)
    found = score(model, x[:, :3], [3, 0, 0])
    found = score(model, x[:, :3], [0, 0, 2], found.state, found.logits)
    got = score(model, x, [4, 6, 5], found.state, found.logits).logprobs
    close(got[1:2], score(model, x[1:2], [6]).logprobs)
    assert got[1, 0] == 0
    assert max(got[0, 0], got[2, 0]) < 0


def _row(logits, row):
    return None if logits is None else logits[row : row + 1]


@pytest.mark.sample(0.05)
def test_inactive_rows_keep_their_state_and_reset_rows_begin_anew(model):
    x = tokens(6, B=2)
    _, state = prefill(model, x[:, :4])
    _, after = decode_step(model, x[:, 4], state, active=jnp.asarray([True, False]))
    logits, _ = decode_step(model, x[:, 5], after)
    close(logits[0], forward(model, x[:1])[0][0, -1])
    close(logits[1], forward(model, jnp.append(x[1, :4], x[1, 5])[None])[0][0, -1])

    fresh = reset(model, after, jnp.asarray([False, True]))
    logits, _ = decode_step(model, x[:, 5], fresh)
    close(logits[0], forward(model, x[:1])[0][0, -1])
    close(logits[1], forward(model, x[1:, 5:])[0][0, -1])


@pytest.mark.sample(0.05)
def test_forks_go_their_own_ways_and_leave_their_past_alone(model):
    x = tokens(9, B=2)
    _, state = prefill(model, x[:, :5])
    before = jax.tree.map(np.asarray, state)
    ways = jnp.asarray([1, 2, 3, 4])
    logits, _ = decode_step(model, ways, fork(state, 2))
    for way in range(4):
        whole = jnp.append(x[way // 2, :5], ways[way])[None]
        close(logits[way], forward(model, whole)[0][0, -1])
    jax.tree.map(np.testing.assert_array_equal, state, before)


@pytest.mark.sample(0.05)
def test_sessions_of_any_length_are_joined_into_a_batch(model):
    x = tokens(12, B=3)
    read = [prefill(model, x[row : row + 1, :n])[1] for row, n in enumerate(LENGTHS)]
    logits, state = decode_step(model, x[:, 11], join(read))
    for row, length in enumerate(LENGTHS):
        whole = jnp.append(x[row, :length], x[row, 11])[None]
        close(logits[row], forward(model, whole)[0][0, -1])
    logits, _ = decode_step(model, x[1:2, 2], take(state, [1]))
    whole = jnp.concatenate([x[1, : LENGTHS[1]], x[1, 11:], x[1, 2:3]])[None]
    close(logits[0], forward(model, whole)[0][0, -1])


@pytest.mark.sample(0.05)
def test_rows_are_put_and_reset_at_any_length(model):
    x = tokens(12, B=3)
    _, state = prefill(model, x[:2, :5])
    _, guest = prefill(model, x[2:, :9])
    logits, _ = decode_step(model, x[:2, 11], put(state, [1], guest))
    close(logits[0], forward(model, jnp.append(x[0, :5], x[0, 11])[None])[0][0, -1])
    close(logits[1], forward(model, jnp.append(x[2, :9], x[1, 11])[None])[0][0, -1])
    fresh = reset(model, state, jnp.asarray([True, False]))
    logits, _ = decode_step(model, x[:2, 11], fresh)
    close(logits[0], forward(model, x[:1, 11:])[0][0, -1])
    close(logits[1], forward(model, jnp.append(x[1, :5], x[1, 11])[None])[0][0, -1])


@pytest.mark.sample(0.05)
def test_a_draft_is_scored_and_rolled_back_to_any_token(model):
    x = tokens(14, B=2)
    whole, _ = forward(model, x)
    _, state = prefill(model, x[:, :6])
    found = verify(model, x[:, 6:11], state)
    close(found.logits, whole[:, 6:11])
    for accepted in (0, 2, 5):
        logits, _ = prefill(model, x[:, 6 + accepted :], found.after(accepted))
        close(logits, whole[:, -1])
    mixed = found.after(jnp.asarray([1, 4]))
    logits, _ = decode_step(model, jnp.asarray([x[0, 7], x[1, 10]]), mixed)
    close(logits, jnp.stack([whole[0, 7], whole[1, 10]]))


@pytest.mark.sample(0.05)
def test_a_session_goes_on_from_disk(model, tmp_path):
    x, path = tokens(13, B=2), tmp_path / "text.session"
    whole, _ = forward(model, x)
    logits, state = prefill(model, x[:, :7])
    save_session(path, model, Session(state, logits, 7))
    found = load_session(path, model)
    assert found.tokens == 7
    np.testing.assert_array_equal(found.logits, logits)
    jax.tree.map(np.testing.assert_array_equal, found.state, state)
    logits, state = prefill(model, x[:, 7:], found.state)
    close(logits, whole[:, -1])
    save_session(path, model, Session(state, logits, 13))  # with room made for a state that grows
    assert load_session(path, model).tokens == 13
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_session_of_another_model_or_a_damaged_one_is_refused(tmp_path):
    model, path = build("yaad"), tmp_path / "text.session"
    logits, state = prefill(model, tokens(5, B=1))
    save_session(path, model, Session(state, logits, 5))
    other = build("yaad", "bias.delta=4")
    assert fingerprint(other) != fingerprint(model)
    with pytest.raises(miras.ConfigError, match=r"belongs to model \w+, and this is"):
        load_session(path, other)
    whole = path.read_bytes()
    for size in (0, 10, 200, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(miras.ConfigError, match="truncated or damaged"):
            load_session(path, model)
    for place in (len(whole) - 1, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(miras.ConfigError, match="not those that were written"):
            load_session(path, model)
    with pytest.raises(miras.ConfigError, match="does not exist"):
        load_session(tmp_path / "none", model)
    with pytest.raises(miras.ConfigError, match="not of this model"):
        save_session(path, build("titans_lmm"), Session(state, logits, 5))
    with pytest.raises(miras.ConfigError, match="there is no folder"):
        save_session(tmp_path / "none" / "a", model, Session(state, logits, 5))
    with pytest.raises(miras.ConfigError, match="is a folder"):
        save_session(tmp_path, model, Session(state, logits, 5))


def test_a_session_of_other_weights_is_refused(tmp_path):
    model, path = build("yaad"), tmp_path / "text.session"
    logits, state = prefill(model, tokens(5, B=1))
    save_session(path, model, Session(state, logits, 5))
    graph, params = nnx.split(model)
    retrained = nnx.merge(graph, jax.tree.map(lambda p: 1.01 * p, params))
    with pytest.raises(miras.ConfigError, match=r"belongs to model \w+, and this is"):
        load_session(path, retrained)


def test_format_2_names_the_fields_of_either_l2():
    config = session_format_2._to_dict(miras.preset("titans_lmm").rule)
    assert config["bias"] == {"kind": "l2"}
    assert config["retention"]["kind"] == "l2"
    assert config["retention"]["decay"] == 0.999
    assert session_format_2.fingerprint(build("titans_lmm"))


def test_a_session_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    model, path = build("yaad"), tmp_path / "text.session"
    logits, state = prefill(model, tokens(5, B=1))
    save_session(path, model, Session(state, logits, 5))
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(miras.ConfigError, match="No space left"):
        save_session(path, model, Session(state, logits, 6))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_windows_state_is_of_one_size():
    for name in ("titans_mac", "titans_mag", "titans_mal", "yaad_h"):
        model = build(name)
        shapes = [
            jax.tree.map(jnp.shape, prefill(model, tokens(length))[1]) for length in (2, 5, 150)
        ]
        assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s: prefill(m, tokens(4, B=3), s), "tokens have 3 rows and the state 2"),
        (lambda m, s: prefill(m, tokens(4), mask=jnp.ones((2, 3), bool)), "it must be bool"),
        (
            lambda m, s: prefill(m, tokens(4), mask=jnp.asarray([[False] * 4, [True] * 4])),
            "mask has no token in row 0",
        ),
        (lambda m, s: prefill(m, [[1, 2], [3]]), "rows that differ in length"),
        (lambda m, s: take(s, [2]), r"rows=\[2\] must be a list of numbers in \[0, 2\)"),
        (lambda m, s: take(s, [0.5]), "must be a list of numbers"),
        (lambda m, s: put(s, [5], take(s, [0])), r"rows=\[5\] must be a list of numbers in"),
        (lambda m, s: put(s, [0, 1], take(s, [0])), "must name 1 different rows"),
        (lambda m, s: put(s, [1, 1], s), "must name 2 different rows"),
        (lambda m, s: reset(m, s, [1]), r"rows has shape \(1,\) and dtype int32"),
        (lambda m, s: reset(m, s, jnp.ones(3, bool)), r"it must be bool \(2,\)"),
        (
            lambda m, s: decode_step(m, jnp.zeros(2, int), s, active=jnp.asarray([False])),
            r"active has shape \(1,\)",
        ),
        (lambda m, s: m(tokens(4, B=3), state=s), "tokens have 3 rows and the state 2"),
        (lambda m, s: m(tokens(4), state=build("yaad").init_state(2)), "not of this model"),
        (lambda m, s: m(tokens(4), state=(s, s)), "not of this model"),
        (
            lambda m, s: prefill(m, tokens(3), build("linear_attention", "chunk=8").init_state(2)),
            "not of this model, whose rule, chunk",
        ),
        (lambda m, s: verify(m, tokens(3, B=3), s), "tokens have 3 rows and the state 2"),
        (lambda m, s: steps(m, jnp.zeros((1, m.config.vocab)), s, 2), "1 rows and the state 2"),
        (lambda m, s: prefill(build("titans_lmm"), tokens(3), s), "not of this model"),
        (lambda m, s: join([s, build("titans_lmm").init_state(2)]), "of different models"),
        (lambda m, s: verify(m, tokens(3), s).after(1.5), r"tokens=1\.5 must be a whole number"),
        (lambda m, s: score(m, tokens(4), [1, 5]), r"lengths=\[1, 5\] must be .* in \[0, 4\], one"),
        (lambda m, s: score(m, tokens(4), [1.0, 2.0]), "must be 2 whole numbers"),
        (
            lambda m, s: score(m, tokens(4), None, s, jnp.ones((2, 3))),
            r"logits have shape \(2, 3\)",
        ),
        (lambda m, s: score(m, [[1, 2], [3]]), "rows that differ in length"),
        (lambda m, s: score(m, tokens(4, B=3), None, s), "3 rows and the state 2"),
        (
            lambda m, s: m(tokens(4), mask=jnp.ones((2, 4))),
            "mask has dtype float32: it must be bool",
        ),
        (lambda m, s: fork(s, 0), "copies=0 must be at least 1"),
        (lambda m, s: verify(m, tokens(3), s).after(4), r"in \[0, 3\]"),
        (lambda m, s: generate(m, np.zeros((1, 0), np.int32), 1), "at least one token per row"),
    ],
)
def test_bad_calls(call, message):
    model = build("linear_attention")
    _, state = prefill(model, tokens(3))
    with pytest.raises(miras.ConfigError, match=message):
        call(model, state)


def test_no_room_is_told_of():
    model = build("transformer")
    _, state = prefill(model, tokens(3))
    state = reset(model, state, jnp.asarray([True, False]))
    with pytest.raises(miras.ConfigError, match="room for 0 more tokens, not 2"):
        model(tokens(2), state=state)


def test_a_model_that_keeps_all_tokens_is_streamed_in_few_programs():
    model, text = build("transformer"), np.asarray(tokens(300, B=1))[0]
    before = read_step._cache_size()
    found = read_stream(model, [text], np.ones(model.config.vocab), piece=32)
    # Whole pieces with room for 256 tokens and for 512, and what is left.
    assert read_step._cache_size() - before <= 3
    close(found.session.logits, forward(model, text[None])[0][:, -1])


def test_a_buckets_health_weighs_calls_by_their_targets():
    model, text = build("titans_lmm"), np.asarray(tokens(2100, B=1))[0]
    found = read_stream(model, [text], np.ones(model.config.vocab), piece=768)
    norms, state = [], None
    for first in range(0, 2100, 768):
        _, state, health = model.observe(text[None, first : first + 768], state=state)
        norms.append(float(health.memory_norm.mean()))
    assert norms[0] != pytest.approx(norms[1], rel=1e-3)
    shares = [(767, 256, 0), (0, 512, 512), (0, 0, 52)]
    assert [bucket.targets for bucket in found.buckets] == [sum(each) for each in shares]
    for bucket, each in zip(found.buckets, shares):
        assert bucket.mean("memory_norm") == pytest.approx(np.average(norms, weights=each))


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "device", "folder", "read-only"])
def test_a_session_is_written_to_a_regular_file_only(tmp_path, kind):
    model, path, other = build("linear_attention"), tmp_path / "a.session", tmp_path / "other"
    other.write_text("other")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "folder":
        path.mkdir()
    elif kind == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere")
        tmp_path.chmod(0o500)
    else:
        path.symlink_to(other if kind == "link" else tmp_path / "none")
    logits = jnp.zeros((1, model.config.vocab))
    with pytest.raises(miras.ConfigError, match=r"session|regular file"):
        save_session(path, model, Session(model.init_state(1), logits, 0))
    assert other.read_text() == "other"
    assert not (tmp_path / "none").exists()
