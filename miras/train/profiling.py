"""Profiles: an XProf trace of some steps of a run, in the folder `profile` of the run.

    profile/plugins/profile/DATE/HOST.xplane.pb   the trace, one file for each host
    profile/operations.json                       the steps, and what each operation belongs to

`tensorboard --logdir RUN/profile`, with the package xprof, shows the trace; `miras profile` reads
both files. The trace of a CPU or a GPU names operations as the compiler does ("fusion.12"), so the
second file has the name stack of each ("jit(step)/.../dot_general") from the compiled step.
"""

import json
import pathlib
import re
from typing import Any

import jax

from miras.config import require
from miras.runtime import processes
from miras.runtime.files import write_atomically

OPERATIONS = "operations.json"
_RANGE = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")
_NAMED = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*?op_name="([^"]*)"', re.MULTILINE)


def parse_profile(text: str, steps: int) -> tuple[int, int]:
    """The first and the last step of `train.profile`, as in "100:103", both included.

    Args:
        text: the field.
        steps: of the run.

    Raises:
        ConfigError: the text has another form, or names steps that the run does not have.
    """
    found = _RANGE.fullmatch(text)
    require(
        found is not None,
        f"train.profile={text!r} is not of the form FIRST:LAST, as in 100:103 for four steps.",
    )
    assert found is not None
    first, last = int(found[1]), int(found[2])
    require(
        1 <= first <= last <= steps,
        f"train.profile={text!r} names steps that the run does not have: give FIRST:LAST with "
        f"1 <= FIRST <= LAST <= {steps}.",
    )
    return first, last


class Profile:
    """Traces the steps of `train.profile`, or nothing; a context manager that ends the trace.

    Args:
        text: `train.profile`.
        steps: of the run.
        start: steps done before this process, which cannot be traced.
        folder: of the run.
    """

    def __init__(self, text: str | None, steps: int, start: int, folder: pathlib.Path):
        first, self._last = (0, 0) if text is None else parse_profile(text, steps)
        self._first = max(first, start + 1)
        self._folder = folder / "profile"
        self._open = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def bounds(self, step: int) -> bool:
        """Whether the trace begins or ends after a step, which must then be awaited."""
        return self._first <= self._last and step in (self._first - 1, self._last)

    def before(self, step: int, compiled: Any) -> None:
        """Begin the trace if a step is the first one of it.

        Args:
            step: the next one; no step is running.
            compiled: the compiled step, whose operations are written to the folder.
        """
        if step != self._first or step > self._last:
            return
        if processes.first():
            self._folder.mkdir(exist_ok=True)
            content = {
                "first": self._first,
                "last": self._last,
                "operations": dict(_NAMED.findall(compiled.as_text())),
            }
            write_atomically(self._folder / OPERATIONS, json.dumps(content) + "\n")
        jax.profiler.start_trace(self._folder)
        self._open = True

    def after(self, step: int) -> str | None:
        """End the trace if a step, which is done, is the last one of it; what the run then says."""
        if step != self._last or not self._open:
            return None
        self._stop()
        return f"steps {self._first} to {self._last} are profiled in {self._folder}."

    def _stop(self) -> None:
        if self._open:
            self._open = False
            jax.profiler.stop_trace()
