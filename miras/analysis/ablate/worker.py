"""One training run in its own process: `python -m miras.analysis.ablate.worker FOLDER`.

The standard input holds the run's config as one line of JSON, and then stays open. When it closes,
the parent process has ended, and this process exits at once: a run may be killed at any point. The
result is written to FOLDER/outcome.json; if that is missing, the last line of the output is the
error. FOLDER is a path or a URL.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from etils import epath

from miras.analysis.ablate import grid_plugins
from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.measurements import measurements
from miras.analysis.ablate.outcome import OUTCOME, Outcome, read_outcome
from miras.analysis.runs.store import read_lines
from miras.config import config_hash, from_json
from miras.errors import ConfigError
from miras.runtime import paths
from miras.runtime.terminal import tolerant_output

if TYPE_CHECKING:
    from miras.train.loop import Result

_PATIENCE = 600.0  # seconds for which a worker waits for a run that has its folder, or for a store
_PAUSE = 5.0
_Result = TypeVar("_Result")


def main(folder: str) -> int:
    """Train; returns the exit code: 0, 1 after a step that was not finite, 2 after ConfigError."""
    start = time.monotonic()
    text = _first_line()
    threading.Thread(target=_exit_with_parent, daemon=True).start()

    import jax

    from miras.analysis.utilization import utilization
    from miras.train import NonFiniteError, RunConfig, train
    from miras.train.runs.lease import InUseError

    try:
        path = epath.Path(folder)
        grid_plugins.restore(GridFolder(path.parent.parent).plugins)
        config = from_json(RunConfig, text)
    except ConfigError as error:
        return _print_error(error)
    resumed: int | None = None
    scores: dict[str, float] = {}
    parameters: int | None = None
    reason = None

    def run() -> "Result | None":
        found = read_outcome(folder, config_hash(config))  # of a writer that was waited for
        return None if found else train(config, folder, utilization=utilization(config))

    try:
        result = _repeated(run, InUseError)
        if result is None:
            return 0
        scores, resumed = result.held_out._asdict(), result.resumed_from
        parameters = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    except NonFiniteError as error:
        reason = str(error)
    except ConfigError as error:
        return _print_error(error)
    lines = _repeated(lambda: read_lines(path), ConfigError)
    outcome = Outcome(
        config_hash=config_hash(config),
        status="done" if reason is None else "diverged",
        reason=reason,
        bits_per_byte=scores.get("bits_per_byte"),
        accuracy=scores.get("accuracy"),
        steps=config.train.steps,
        seconds=round(time.monotonic() - start, 3),
        resumed_from=resumed,
        parameters=parameters,
        **measurements(lines)._asdict(),
        scores=scores,
    )
    _repeated(lambda: paths.write(path / OUTCOME, outcome.to_json()), ConfigError)
    return 0 if reason is None else 1


def _repeated(call: Callable[[], _Result], while_raised: type[ConfigError]) -> _Result:
    """The result of a call, which is repeated for a while as long as it raises an error of a type.

    `InUseError`: on a cluster, a node that is cut off is lost for the others before it knows, so
    that its run has the folder. `ConfigError`, once the run has ended: an object store that does
    not answer for a moment should not cost the result.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except while_raised as error:
            if time.monotonic() > end:
                raise
            print(f"waiting: {error}", flush=True)
            time.sleep(_PAUSE)


def _print_error(error: ConfigError) -> int:
    print(f"miras: {error}", flush=True)
    return 2


def _first_line() -> str:
    """A line of the standard input, read unbuffered, since the thread reads the rest."""
    data = b""
    while not data.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part:
            sys.exit("the standard input ended before the config did.")
        data += part
    return data.decode()


def _exit_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(143)


if __name__ == "__main__":
    with tolerant_output():
        sys.exit(main(sys.argv[1]))
