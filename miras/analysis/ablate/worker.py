"""One training run in its own process: `python -m miras.analysis.ablate.worker FOLDER`.

The standard input holds the run's config as one line of JSON, and then stays open. When it closes,
the parent process has ended, and this process exits at once: a run may be killed at any point. The
result is written to FOLDER/outcome.json; if that is missing, the last line of the output is the
error.
"""

import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.measurements import measurements
from miras.analysis.ablate.outcome import OUTCOME, Outcome
from miras.config import config_hash, from_json, plugins
from miras.errors import ConfigError
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant_output
from miras.train.loggers.jsonl import read_metrics

_PATIENCE = 600.0  # seconds for which a worker waits for a run that has its folder
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

    try:
        plugins.restore(GridFolder(pathlib.Path(folder).parent.parent).plugins)
        config = from_json(RunConfig, text)
    except ConfigError as error:
        return _print_error(error)
    resumed: int | None = None
    scores: dict[str, float] = {}
    parameters: int | None = None
    reason = None
    try:
        result = _when_free(lambda: train(config, folder, utilization=utilization(config)))
        scores, resumed = result.held_out._asdict(), result.resumed_from
        parameters = sum(leaf.size for leaf in jax.tree.leaves(result.state.params))
    except NonFiniteError as error:
        reason = str(error)
    except ConfigError as error:
        return _print_error(error)
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
        **measurements(read_metrics(pathlib.Path(folder) / "metrics.jsonl"))._asdict(),
        scores=scores,
    )
    write_atomically(pathlib.Path(folder) / OUTCOME, outcome.to_json())
    return 0 if reason is None else 1


def _when_free(call: Callable[[], _Result]) -> _Result:
    """The result of a call, which is repeated for a while if a run that is alive has the folder.

    On a cluster, a node that is cut off is lost for the others before it knows.
    """
    from miras.train.runs.lease import InUseError

    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return call()
        except InUseError as error:
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
