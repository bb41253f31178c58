"""`typed`: arrays are checked against their annotations when a function is called or traced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from miras.array_typing import Array, Float, Gates, Int, Keys, Mask, Queries, typed
from miras.errors import ConfigError


@typed
def attend(q: Queries, k: Keys, gates: Gates, mask: Mask | None = None) -> Queries:
    if q.shape[0] == 7:
        raise ConfigError("7 rows are too many.")
    return q + 0 * jnp.sum(k[:, :1, :1])


Left, Right, Product, Ids = (
    Float[Array, "B D"], Float[Array, "D E"], Float[Array, "B E"], Int[Array, " B"],
)  # fmt: skip
Q, K = jnp.ones((2, 3, 4, 5)), jnp.ones((2, 6, 4, 5))
GATES = {"lr": jnp.ones((2, 3, 4)), "log_decay": jnp.ones((2, 3, 4, 5))}


@pytest.mark.parametrize("k", [jnp.ones((2, 3, 4, 5)), jnp.ones((2, 3, 4, 2, 5))])
def test_arrays_that_fit_pass(k):
    np.testing.assert_array_equal(attend(Q, k, GATES), Q)
    np.testing.assert_array_equal(attend(np.asarray(Q), k, GATES, np.ones((2, 3), bool)), Q)
    np.testing.assert_array_equal(jax.jit(attend)(Q, k, GATES), Q)
    many = jax.vmap(attend)(Q[None], k[None], {n: g[None] for n, g in GATES.items()})
    np.testing.assert_array_equal(many[0], Q)


@pytest.mark.parametrize("call", [attend, jax.jit(attend)], ids=["called", "traced"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((Q, K, GATES), r"attend: k has shape \(2, 6, 4, 5\) and dtype float32: it must be Float"),
        ((Q[0], Q, GATES), r"attend: q has shape \(3, 4, 5\) .* Float\[B T H \*N Dk\]"),
        ((Q.astype(int), Q, GATES), "q has .* int"),
        ((Q, Q, {"lr": jnp.ones((2, 3))}), r"gates\['lr'\] has shape \(2, 3\)"),
        ((Q, Q, GATES, jnp.ones((2, 3))), "mask has .*it must be Bool"),
        ((Q, Q, GATES, jnp.ones((3, 2), bool)), "mask has"),
        ((jnp.ones((7, 3, 4, 5)), Q, GATES), "^7 rows are too many"),
    ],
)
def test_arrays_that_do_not_fit_raise_one_clear_error(call, args, message):
    with pytest.raises(ConfigError, match=message) as found:
        call(*args)
    assert str(found.value).splitlines()[0].endswith(".")


def test_a_shape_on_which_jax_fails_is_named():
    @typed
    def product(x: Left, w: Right) -> Product:
        return x @ w

    with pytest.raises(ConfigError, match=r"w has shape \(5, 4\)"):
        product(jnp.ones((2, 3)), jnp.ones((5, 4)))
    with pytest.raises(TypeError):
        product(jnp.ones((2, 3)), "no array")  # pyright: ignore[reportArgumentType]


def test_results_are_checked_and_compiled_code_has_no_checks():
    @typed
    def wrong(x: Ids) -> Ids:
        return x[1:]

    with pytest.raises(ConfigError, match="result has shape"):
        wrong(jnp.arange(3))
    plain = lambda q, k: attend.__wrapped__(q, k, GATES)  # noqa: E731
    assert str(jax.make_jaxpr(plain)(Q, Q)) == str(
        jax.make_jaxpr(lambda q, k: attend(q, k, GATES))(Q, Q)
    )
