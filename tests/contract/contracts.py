"""What holds for every legal rule, each contract a function of a rule and arguments of `scan`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import miras
from miras.config import from_dict, to_dict
from miras.testing import check_rule, random_inputs
from miras.testing.expect import double_precision_op_by_op, expect, expect_close
from miras.testing.inputs import scan_with_loss

Options = dict[str, Any]


def backends_agree(rule: miras.Rule, options: Options, seed: int = 0, chunk: int = 2) -> None:
    """`xla` is `reference` in value and gradient, and both are finite."""
    check_rule(rule, chunk=chunk, seed=seed, **options)


def split_is_whole(rule: miras.Rule, options: Options, seed: int = 0, chunk: int = 2) -> None:
    """A sequence in two calls, cut inside a chunk, is the sequence in one."""
    with double_precision_op_by_op():
        W0, *streams = jax.tree.map(jnp.asarray, random_inputs(rule, seed=seed))
        how = {name: options[name] for name in ("refine", "exact") if name in options}
        labels = {name: jnp.asarray(x) for name, x in options.items() if name not in how}

        def run(tokens: slice, state: Any = None):
            part = jax.tree.map(lambda x: x[:, tokens], (streams, labels))
            return miras.scan(rule, W0, *part[0], **part[1], **how, chunk=chunk, state=state)

        want, _ = run(slice(None))
        first, state = run(slice(0, 1))
        second, _ = run(slice(1, None), state)
        got = jnp.concatenate([first, second], axis=1)
        expect_close(got, want, f"{rule} with {options}: a split sequence is not the whole one")


def loss_falls(rule: miras.Rule, options: Options) -> None:
    """A rule that reads the same three associations again and again comes to know them.

    Nothing is forgotten, steps are small, and the memory starts where an outer loop might put it.
    Where a token is also written with the one before, the first token of a call has a term of the
    loss less than when it comes again, so the first pass does not count.
    """
    pairs, passes = 3, 4
    scales = (*rule.bias.gates(), *rule.gates_of("update"))  # nothing is written where they are 0
    starts = {gate.name: gate.value for gate in scales if gate.range == "bounded"}
    held = starts | {"lr": 0.01, "log_momentum": np.log(0.5), "threshold": 1.0, "weight": 1.0}
    with double_precision_op_by_op():
        W0, *streams, gates = random_inputs(rule, T=pairs)
        q, k, v = (jnp.tile(x, (1, passes, 1, 1)) for x in streams)
        drawn = {gate.name for gate in rule.gates if gate.drawn}  # vectors of the token, as values
        gates = {
            name: jnp.tile(
                gate if name in drawn else np.full_like(gate, held.get(name, 0.0)),
                (1, passes) + (1,) * (gate.ndim - 2),
            )
            for name, gate in gates.items()
        }
        how = {name: options[name] for name in ("refine", "exact") if name in options}
        *_, loss = scan_with_loss(rule, W0, q, k, v, gates, chunk=pairs, **how)
    by_pass = np.asarray(loss).reshape(passes, -1).sum(axis=1)
    start = by_pass[1 if rule.carries(1, 1) else 0]
    expect(by_pass[-1] < start, f"{rule} with {options}: the inner loss rises: {by_pass}.")


def traced_once(rule: miras.Rule, options: Options, traces: list[miras.Rule]) -> None:
    """A second call, with an equal rule that was made anew, is not traced again.

    Args:
        rule: the rule.
        options: arguments of `scan`.
        traces: where the backend notes the rule of each trace; see `test_space`.
    """
    inputs = random_inputs(rule, dtype=np.float32)
    again = from_dict(miras.Rule, to_dict(rule))
    before = len(traces)
    for same in (rule, again):
        jax.eval_shape(lambda *args, r=same: miras.scan(r, *args, chunk=2, **options), *inputs)
    expect(len(traces) - before == 1, f"{rule}: {len(traces) - before} traces of two equal calls.")
