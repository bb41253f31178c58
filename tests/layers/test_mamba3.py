"""Mamba-3's layer against a NumPy recurrence of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import miras
from miras.layers import MemoryConfig, MemoryLayer
from miras.layers.config import LayerConfig
from miras.layers.turning import CumulativeAngles, wrapped

pytestmark = pytest.mark.usefixtures("float64")
B, T, H, WIDTH = 2, 23, 2, 8
IDS = np.repeat([[0, 1, 2]], B, 0).repeat([6, 7, 10], 1)


def layer(chunk=4, **changes) -> MemoryLayer:
    """The preset's, in float64, its parameters off their starts."""
    config = miras.preset("mamba3")
    memory = MemoryConfig(config.rule, chunk=chunk)
    own = LayerConfig(**{**vars(config.layer), **changes})
    made = MemoryLayer(memory, WIDTH, H, config=own, rngs=nnx.Rngs(0))
    graph, params = nnx.split(made)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    moved = [jnp.asarray(x + 0.3 * rng.normal(size=x.shape), jnp.float64) for x in leaves]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved))


def called(made):
    """The layer's call, compiled."""
    graph, params = nnx.split(made)
    call = jax.jit(lambda params, x, **more: nnx.merge(graph, params)(x, **more))
    return lambda x, **more: call(params, x, **more)


def tokens(seed=1):
    return np.random.default_rng(seed).normal(size=(B, T, WIDTH))


def published(made: MemoryLayer, x: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The layer one token at a time: `mamba_ssm/modules/mamba3.py` with states of H heads.

    The R inputs and outputs of MIMO; with one there are no maps between one and R.
    """
    a = lambda p: np.asarray(p[...], np.float64)  # noqa: E731
    R, head = made.config.mimo, WIDTH // H
    up = down = gated = np.ones((R, H, head))
    if R > 1:
        up, down, gated = (a(p) for p in (made.mimo.value, made.mimo.output, made.mimo.gate))
    gates, y = made.fast.gates, np.zeros(x.shape)

    def logit(name, token):
        return token @ a(gates.kernels[name].kernel) + a(gates.biases[name])

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    def normed(z, name):
        rms = np.sqrt(np.mean(z**2, axis=-1, keepdims=True) + 1e-5)
        return z / rms * a(made.keys.norms[name].scale) + a(made.keys.biases[name])

    def rotated(z, angle):  # (first, second) as the real and the imaginary part
        half = z.shape[-1] // 2
        turned = (z[..., :half] + 1j * z[..., half:]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    for b in range(B):
        for t in range(T):
            token = x[b, t]
            if t == 0 or ids[b, t] != ids[b, t - 1]:
                h = a(made.fast.initial["w1"])
                angle, before = 0.0, np.zeros_like(h)
            made_of = np.einsum("i,ishd->shd", token, a(made.qkv.linear.kernel))
            C, Bt, X = made_of[:R], made_of[R : 2 * R], made_of[2 * R] * up  # [R, H, D]
            dt, lam = sigmoid(logit("lr", token)), sigmoid(logit("trapezoid", token))
            decay = np.exp(-dt * np.logaddexp(0, -logit("log_decay", token)))[:, None, None]
            turn = np.pi * np.tanh(token @ a(made.angles.kernel.kernel))
            angle = angle + turn[None] * dt[:, None]
            C, Bt = rotated(normed(C, "q"), angle), rotated(normed(Bt, "k"), angle)
            now = np.einsum("rhi,rho->hio", Bt, X)
            dt, lam = dt[:, None, None], lam[:, None, None]
            h = decay * h + (1 - lam) * dt * decay * before + lam * dt * now
            before = now
            read = np.einsum("rhi,hio->rho", C, h) + a(made.skip)[:, None] * X
            z = (token @ a(made.gate.kernel)).reshape(H, head) * gated
            y[b, t] = np.sum(read * z * sigmoid(z) * down, axis=0).reshape(-1) @ a(made.out.kernel)
    return y


def close(got, want, tolerance=1e-10):
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk", "mimo"),
    [(4, 1), (4, 3)]
    + [pytest.param(c, r, marks=pytest.mark.exhaustive) for c in (1, 16, 64) for r in (1, 3)],
)
def test_packed_documents_and_cuts_are_the_recurrence(chunk, mimo):
    """Also a document alone: angles and the token before begin anew with each."""
    made, x, cut = layer(chunk, mimo=mimo), tokens(), 9
    want = published(made, x, IDS)
    call, ids = called(made), jnp.asarray(IDS)
    whole, end, _ = call(jnp.asarray(x), segment_ids=ids)
    close(whole, want)
    head, state, _ = call(jnp.asarray(x[:, :cut]), segment_ids=ids[:, :cut])
    tail, second, _ = call(jnp.asarray(x[:, cut:]), segment_ids=ids[:, cut:], state=state)
    close(jnp.concatenate([head, tail], axis=1), want)
    _, alone, _ = call(jnp.asarray(x[:, 13:]))
    for got in (end, second):
        close(got.angles, alone.angles)
        for name, buffer in got.memory.carried.items():
            close(buffer, alone.memory.carried[name])


def test_padding_turns_nothing():
    made, x = layer(), tokens()
    mask = np.random.default_rng(5).uniform(size=(B, T)) < 0.6
    mask[:, -1] = False
    y, end, _ = called(made)(jnp.asarray(x), mask=jnp.asarray(mask))
    alone, after, _ = called(made)(jnp.asarray(x[:1, mask[0]]))
    close(y[0, mask[0]], alone[0])
    close(end.angles[0], after.angles[0])


def test_gradients_of_the_layer_are_finite_differences():
    """By the tokens and by every parameter, through documents and two chunks, with MIMO."""
    made = layer(mimo=2)
    graph, params = nnx.split(made)
    x, rng = jnp.asarray(tokens()), np.random.default_rng(2)
    weight = rng.normal(size=x.shape)

    @jax.jit
    def value(both):
        y, _, _ = nnx.merge(graph, both[0])(both[1], segment_ids=IDS)
        return jnp.sum(y * weight)

    slopes, h = jax.jit(jax.grad(value))((params, x)), 1e-5
    way = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), (params, x))
    moved = [
        value(jax.tree.map(lambda p, d, s=s: p + s * h * d, (params, x), way)) for s in (1, -1)
    ]
    slope = sum(jnp.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (slopes, way))))
    assert abs(slope) > 0.1
    close(slope, (moved[0] - moved[1]) / (2 * h), 1e-6)
    for path, leaf in jax.tree.leaves_with_path(slopes):
        assert float(jnp.max(jnp.abs(leaf))) > 0, path


def test_tokens_that_turn_nothing_rotate_nothing():
    turned, plain = layer(), layer(rope=False)
    turned.angles.kernel.kernel[...] = jnp.zeros_like(turned.angles.kernel.kernel[...])
    params = nnx.state(turned, nnx.Param)
    del params["angles"]
    nnx.update(plain, params)
    x = jnp.asarray(tokens())
    close(called(plain)(x)[0], called(turned)(x)[0])


def test_angles_do_not_lose_digits():
    """After 2^14 tokens of float32, as float64 has them."""
    with jax.enable_x64(False):
        made = CumulativeAngles(4, 1, nnx.Rngs(0))
        x = np.random.default_rng(0).normal(size=(1, 2**14, 4)).astype(np.float32) + 1
        rate = jnp.ones((1, 2**14, 1), jnp.float32)
        never = jnp.zeros((1, 2**14), bool)
        start = made.init_state(1, jnp.float32)
        call = jax.jit(lambda x: made(x, rate, begins=never, mask=None, state=start))
        got, _ = call(jnp.asarray(x))
        turns = np.pi * np.asarray(jnp.tanh(made.kernel(jnp.asarray(x))), np.float64)
    want = np.cumsum(turns, axis=1)
    assert np.abs(want).max() > 3e3
    assert np.abs(wrapped(np.asarray(got[:, :, 0], np.float64) - want)).max() < 1e-4


def test_what_cannot_turn_is_refused():
    with pytest.raises(miras.ConfigError, match=r"model\.width=6 / model\.heads=2 must be even"):
        miras.override(miras.preset("mamba3"), "width=6", "heads=2")
    with pytest.raises(miras.ConfigError, match="turns by the rate of a token"):
        miras.override(
            miras.preset("deltaproduct"), "layer.rope=true", "layer.rope_angles=cumulative"
        )
    with pytest.raises(miras.ConfigError, match=r"layer\.skip=true adds the value of a token"):
        miras.override(miras.preset("deltaproduct"), "layer.skip=true")
    with pytest.raises(miras.ConfigError, match=r"layer\.rope_angles='position'"):
        miras.override(miras.preset("mamba3"), "architecture=mac")
    with pytest.raises(miras.ConfigError, match="also writes that of the token before"):
        miras.override(miras.preset("mamba3"), "blocks.M.mixer=log_linear")
    mimo = miras.override(miras.preset("mamba3"), "mimo=2")
    with pytest.raises(miras.ConfigError, match="several times a token, which mixer 'mac'"):
        miras.override(mimo, "architecture=mac", "layer.skip=false", "layer.rope=false")
    with pytest.raises(miras.ConfigError, match="writes one association a token"):
        miras.override(miras.preset("hgrn2"), "layer.mimo=2")
    with pytest.raises(miras.ConfigError, match=r"layer\.keys='comba' makes by itself"):
        miras.override(miras.preset("comba"), "layer.mimo=2")
    with pytest.raises(miras.ConfigError, match="computed from one lr a token"):
        miras.override(miras.preset("deltaproduct"), "retention.discretised=true")
    with pytest.raises(miras.ConfigError, match="makes 2 associations of a token's"):
        miras.override(miras.preset("mamba3"), "algorithm=muon")
