"""The compiled plan: HBM by kind, collectives and kernels of the step that the compiler makes.

Results are kept in the user's cache folder, by everything that they depend on.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from miras import __version__
from miras.analysis.plan import schedule
from miras.analysis.plan.assignment import FLAGS, at_peak
from miras.analysis.plan.job import Job
from miras.analysis.plan.kinds import by_kind
from miras.config import to_dict
from miras.errors import ConfigError
from miras.runtime.files import write_atomically

_SECONDS = 24 * 3600
_FORMAT = 2  # of what is kept; 2: with kernels, and collectives by the passes of their loops


class Compiled(NamedTuple):
    """What the compiler says of a step.

    Attributes:
        error: that it ends with, such as that a program does not fit; "" for none.
        peak: bytes of HBM of a chip at the peak.
        kinds: bytes of each of `kinds.KINDS` at the peak.
        collectives: dicts of kind, in_layers (inside the loop over layers), count and bytes, the
            last two of a step.
        between_slices: dicts of kind and bytes, of what leaves a slice.
        seconds: that compiling took.
        kernels: dicts of the fields of `step_kernels.StepKernel`.
        unscheduled: why the kernels' schedules could not be read; "" if they could.
    """

    error: str
    peak: int
    kinds: dict[str, int]
    collectives: list[dict[str, Any]]
    between_slices: list[dict[str, Any]]
    seconds: float
    kernels: list[dict[str, Any]]
    unscheduled: str


def why_not(job: Job) -> str:
    """Why a step cannot be compiled here; "" if it can."""
    chip = job.slice.chip
    if chip.kind != "tpu":
        return f"{job.slice.name} is analytic only: no compiler is asked for a {chip.kind.upper()}"
    found = importlib.util.find_spec("libtpu") or os.environ.get("TPU_LIBRARY_PATH")
    return "" if found else "not compiled: that takes `pip install 'miras-jax[tpu]'`, on Linux"


def compiled(job: Job, plugins: Sequence[str] = ()) -> Compiled:
    """The compiled plan of a job, or the one that is kept.

    Args:
        job: the run, on TPUs.
        plugins: files and modules that the config needs.

    Raises:
        ConfigError: the process that compiles ends without a result.
    """
    file = _folder(job) / f"{_key(job)}.json"
    if file.exists():
        return Compiled(**json.loads(file.read_text()))
    found = _compile(job, plugins)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(found._asdict(), indent=1))
    return found


def _compile(job: Job, plugins: Sequence[str]) -> Compiled:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, result, dump = folder / "config.json", folder / "result.json", folder / "dump"
        schedules = folder / "schedules"
        config.write_text(json.dumps(to_dict(job.config)))
        flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS.format(dump)}"
        tpu_flags = os.environ.get("LIBTPU_INIT_ARGS", "")
        # The compiled step is needed in full: one from a cache would dump nothing.
        environment = os.environ | {
            "XLA_FLAGS": flags.strip(),
            "LIBTPU_INIT_ARGS": f"{tpu_flags} {schedule.FLAGS.format(schedules)}".strip(),
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
        }
        command = [sys.executable, "-m", "miras.analysis.plan.compiler", str(config)]
        command += [job.slice.topology, str(job.slice.slices), str(result)]
        command += [str(schedules), *plugins]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if not result.exists():
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ConfigError(
                f"the compiler for {job.slice.name} ended with code {done.returncode} ({last}): "
                "plan with --no-compile, or on a machine with more memory."
            )
        values = json.loads(result.read_text())
        if "error" in values:
            return Compiled(values["error"], 0, {}, [], [], values["seconds"], [], "")
        kinds = by_kind(at_peak(dump), job)
    wanted = ("peak", "collectives", "between_slices", "seconds", "kernels", "unscheduled")
    return Compiled(error="", kinds=kinds, **{name: values[name] for name in wanted})


def _folder(job: Job) -> Path:
    return Path(job.config.data.cache_dir) / "plans"


def _key(job: Job) -> str:
    """Of what a compiled step depends on: neither on names of data nor on when a run logs."""
    values = to_dict(job.config)
    data = {name: values["data"][name] for name in ("batch", "sequence")}
    if job.config.data.task is not None:  # it may bring its own model
        data["task"] = values["data"]["task"]
    train = {n: v for n, v in values["train"].items() if not n.endswith(("every", "minutes"))}
    libraries = {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "flax", "optax")}
    text = json.dumps(
        [
            values["model"],
            data,
            train,
            job.sizes,
            job.slice.topology,
            libraries,
            __version__,
            _FORMAT,
        ],
        sort_keys=True,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
