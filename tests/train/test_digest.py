"""The digest of an array: which changes it notices, and what it does not depend on."""

import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.train.checkpoints.digest import digest
from tests.devices import environment

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool", "complex64"]


def of(array):
    return digest({"leaf": array})["leaf"]


def flipped(array, bit):
    raw = bytearray(np.asarray(array).tobytes())
    raw[bit // 8] ^= 1 << (bit % 8)
    return jnp.asarray(np.frombuffer(bytes(raw), array.dtype).reshape(array.shape))


def some(dtype, rng):
    bits = rng.integers(0, 256, (3, 2 * np.dtype(dtype).itemsize), np.uint8)
    if dtype == "bool":
        bits &= 1
    return jnp.asarray(bits.view(dtype))  # NaN, infinities and -0 among them


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_counts(dtype):
    array = some(dtype, np.random.default_rng(0))
    bits = range(0, array.nbytes * 8, 8 if dtype == "bool" else 1)
    found = [of(flipped(array, bit)) for bit in bits]
    assert of(array) not in found
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex128"])
def test_every_bit_counts_of_wide_elements(dtype):
    with jax.enable_x64(True):
        array = some(dtype, np.random.default_rng(1))
        assert array.dtype == dtype
        found = {of(flipped(array, bit)) for bit in range(array.nbytes * 8)}
        assert of(array) not in found
        assert len(found) == array.nbytes * 8


def test_a_key_counts():
    assert of(jax.random.key(0)) != of(jax.random.key(1))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.permutations(range(8)))
def test_elements_that_trade_places_are_noticed(order):
    array = jnp.arange(8.0)
    same = order == list(range(8))
    assert (of(array[jnp.asarray(order)]) == of(array)) == same


def test_the_definition():
    """Against NumPy, element by element."""

    def mix(w):
        w = (w ^ w >> 16) * 0x85EBCA6B % 2**32
        w = (w ^ w >> 13) * 0xC2B2AE35 % 2**32
        return w ^ w >> 16

    array = np.random.default_rng(2).normal(size=(2, 3, 4)).astype(np.float32)
    bits = [int(b) for b in array.view(np.uint32).ravel()]
    sums = [
        sum(mix(b ^ mix((i + seed) % 2**32)) for i, b in enumerate(bits)) % 2**32
        for seed in (0x9E3779B9, 0x7F4A7C15)
    ]
    assert of(jnp.asarray(array)) == "".join(f"{s:08x}" for s in sums)


MESH = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from miras.train.checkpoints.digest import digest
mesh = jax.make_mesh((2, 2), ("a", "b"))
x = jnp.sin(jnp.arange(32.0)).reshape(4, 8)
specs = [P(), P("a"), P(None, "b"), P("b", "a"), P(("a", "b"))]
print(digest([x] + [jax.device_put(x, NamedSharding(mesh, spec)) for spec in specs]))
"""


@pytest.mark.multiprocess
def test_the_mesh_does_not_matter(python):
    found = subprocess.run(
        [*python, "-c", MESH],
        env=environment(4),
        capture_output=True,
        text=True,
        check=True,
    )
    leaves = eval(found.stdout)
    assert len(leaves) == 6
    assert set(leaves.values()) == {of(jnp.sin(jnp.arange(32.0)).reshape(4, 8))}
