"""The backend contract: what runs a rule's chunk step over the tokens of a call.

All backends compute the same function, the one that `miras.backends.reference` writes token by
token; they differ in how they go through the tokens. `miras.scan` checks its arguments, fills in
the gates, and hands one `ScanInputs` and one `ScanOptions` to the backend that the options name.

To add a backend, do these four things:

1. Subclass `Backend` and implement `plan`: from the shapes of the inputs alone, decide whether and
   how the call can run. Return an `Unsupported` with the reason where it cannot: `auto` asks the
   next backend, and a user who named this one gets the reason as an error.
2. Implement `run`, under that plan. Call `miras.engine.tile.tile_step` for the mathematics: a
   backend never writes an update of its own. `miras.backends.xla.tiling` lays tokens out as tiles.
3. Register it: `miras.backends.register("name", MyBackend, prefers=("tpu",))`. `prefers` names the
   platforms on which `auto` asks it before "xla".
4. Say in `supports` what it cannot do. `tests/backends/test_contract.py` then runs every contract
   test over it, values and gradients against the reference.
"""

import abc
from typing import Any, NamedTuple

from miras.array_typing import Array, Gates, Keys, Mask, Queries, SegmentIds, Values, Weights
from miras.engine.state import State
from miras.rule.options import ScanOptions
from miras.rule.rule import Rule


class ScanInputs(NamedTuple):
    """The arrays of one call of `miras.scan`, which documents them.

    Attributes:
        W0: initial primal weights, leaves [H, in, out] or [H, out].
        q: [B, T, H, Dk], or [B, T, H, N, Dk] with N reads a token.
        k: [B, T, H, Dk], or [B, T, H, R, Dk] with R associations a token.
        v: [B, T, H, Dv], or [B, T, H, R, Dv].
        gates: by name, [B, T, H, ...]; backends get every gate of the rule.
        k_write: as k, or None.
        state: the state to continue from, or None.
        segment_ids: [B, T] int32, or None.
        mask: [B, T] bool, or None for all tokens.
        average: [C], for an algorithm that averages a chunk's steps, or None.
    """

    W0: Weights
    q: Queries
    k: Keys
    v: Values
    gates: Gates | None = None
    k_write: Keys | None = None
    state: Any = None
    segment_ids: SegmentIds | None = None
    mask: Mask | None = None
    average: Array | None = None

    @property
    def terms(self) -> int | None:
        """R where keys have an axis of associations, else None."""
        return self.k.shape[3] if self.k.ndim == 5 else None


class Alignment(NamedTuple):
    """What the caller promises about chunk edges, so that no other layout is compiled.

    Attributes:
        segments_at_chunks: without a state, segments begin only at multiples of the chunk, as the
            data pipeline ensures. A segment that begins elsewhere is not reset.
        at_chunk_edge: the state stands at the end of a chunk, so that the same holds after it.
        segments_at_edges: segments begin only where a chunk ends, wherever the state stands.
    """

    segments_at_chunks: bool = False
    at_chunk_edge: bool = False
    segments_at_edges: bool = False


class ScanResult(NamedTuple):
    """What a backend returns.

    Attributes:
        y: [B, T, H, Dv], or [B, T, H, N, Dv], in the dtype of q.
        state: the state after the last token.
        loss: inner loss of each token where its gradient was taken, [B, T, H].
    """

    y: Array
    state: State
    loss: Array


class Unsupported(NamedTuple):
    """Why a backend cannot run a call: a clause that completes "it cannot run this: ..."."""

    reason: str


class Supports(NamedTuple):
    """What a backend does, for its contract tests; True unless it says otherwise.

    Attributes:
        float64: computes in float64.
        forward_mode: has forward-mode derivatives (`jax.jvp`).
        precision: takes a `miras.Precision` other than the default.
        save_every: takes `save_every`.
    """

    float64: bool = True
    forward_mode: bool = True
    precision: bool = True
    save_every: bool = True


class Backend(abc.ABC):
    """One way to run a rule over tokens; see the module's docstring for how to add one."""

    @property
    def supports(self) -> Supports:
        """What it does on the platform of the call."""
        return Supports()

    @abc.abstractmethod
    def plan(
        self, rule: Rule, inputs: ScanInputs, options: ScanOptions, alignment: Alignment
    ) -> Any | Unsupported:
        """How the call will run, from shapes and dtypes alone, or why it cannot.

        Args:
            rule: the four parts.
            inputs: checked, every gate present; only shapes and dtypes may be looked at.
            options: checked; `refine` is at most `chunk`.
            alignment: what is known of chunk edges.
        """

    @abc.abstractmethod
    def run(
        self,
        rule: Rule,
        inputs: ScanInputs,
        options: ScanOptions,
        alignment: Alignment,
        plan: Any,
    ) -> ScanResult:
        """Run the call under a plan of `plan` for the same arguments; inside `jax.jit`."""
