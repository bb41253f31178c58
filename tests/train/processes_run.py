"""Runs of several real processes of two virtual CPU devices each, over Gloo.

Each process records the rows of every step that its devices hold, may send itself a signal or do
something else in a given step or while it compiles, and is slow enough that the others can notice a
signal.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from miras.config import to_json
from miras.data import make_loader

ROOT = pathlib.Path(__file__).parent.parent.parent
DEVICES = 2
COMPILING = -2  # in place of the step of a signal

# argv: config, run folder, file of records, step of the action, its code; then of `connect`
SCRIPT = """
import json, os, pathlib, sys, time
from miras.errors import ConfigError
from miras.runtime.cluster import connect, failures_end_the_process

path, out, records, at, action, sleep, *place = sys.argv[1:]
with failures_end_the_process():
    connect(place[0], int(place[1]), int(place[2]), 60) if place else connect(time_limit=60)
    import numpy as np
    from miras.config import from_json
    from miras.runtime.signals import Interrupted
    from miras.train import RunConfig, program, train, trainer

    compile_step = program.TrainingProgram.compile

    def compile_recording(self):
        if int(at) == -2:
            exec(action, globals())
            time.sleep(1.5)  # the thread of jax looks for signals once a second
        step = compile_step(self)

        def recording(state, batches, alive):
            done = int(state.step)
            inputs = batches["inputs"]
            for shard in inputs.addressable_shards:
                rows = range(*shard.index[1].indices(inputs.shape[1]))
                for place, row in enumerate(rows):
                    line = [done, row, np.asarray(shard.data)[:, place].tolist()]
                    with open(records, "a") as file:
                        file.write(json.dumps(line) + "\\n")
            if done == int(at):
                exec(action, globals())
            time.sleep(float(sleep))
            return step(state, batches, alive)

        return recording

    program.TrainingProgram.compile = compile_recording
    try:
        train(from_json(RunConfig, open(path).read()), out)
    except Interrupted as end:
        print(end, file=sys.stderr)
        raise
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def slurm(processes, process, port):
    """The environment of a process that `srun` starts."""
    return {
        "SLURM_JOB_ID": "17",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(processes),
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "JAX_COORDINATOR_PORT": str(port),
    }


class Ended:
    """What a process has printed, and its exit code."""

    def __init__(self, process, folder, number):
        self.code = process.returncode
        self.out = (folder / f"out{number}").read_text()
        self.err = (folder / f"err{number}").read_text()
        self.said = [line for line in self.err.splitlines() if not line.startswith("[Gloo]")]

    def __repr__(self):
        return f"exit code {self.code}\n{self.out[-3000:]}\n{self.err[-3000:]}"


def run(configs, outs, folder, *, at=-1, who=0, number=signal.SIGTERM, action=None, sleep=0.0,
        by_slurm=False, limit=600, within=None):  # fmt: skip
    """Start a process for each config, `within` these folders; `who` signals itself in step `at`.

    An action is code that it executes in place of the signal.

    Returns:
        The processes, once all have ended; their records are `records*` in the folder.
    """
    folder.mkdir(exist_ok=True)
    port, count, started = free_port(), len(configs), []
    for i, (config, out) in enumerate(zip(configs, outs, strict=True)):
        (folder / f"config{i}.json").write_text(to_json(config))
        step = at if i == who else -1
        files = [folder / f"config{i}.json", out, folder / f"records{i}"]
        act = action or f"os.kill(os.getpid(), {int(number)})"
        words = [*files, step, act, sleep]
        environment = os.environ | {
            "JAX_NUM_CPU_DEVICES": str(DEVICES),
            "PYTHONPATH": str(ROOT),
        }
        if by_slurm:
            environment |= slurm(count, i, port)
        elif count > 1:
            words += [f"127.0.0.1:{port}", count, i]
        with (folder / f"out{i}").open("w") as o, (folder / f"err{i}").open("w") as e:
            place = None if within is None else within[i]
            command = [sys.executable, "-c", SCRIPT, *map(str, words)]
            started.append(
                subprocess.Popen(command, stdout=o, stderr=e, env=environment, cwd=place)
            )
    end = time.monotonic() + limit
    try:
        for process in [p for i, p in enumerate(started) if i != who or number != signal.SIGSTOP]:
            process.wait(max(0.1, end - time.monotonic()))
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    return [Ended(process, folder, i) for i, process in enumerate(started)]


def rows_of_the_loader(config):
    """The tokens by (step, row) that a run of one process reads."""
    loader = make_loader(config.data, "train", align=config.model.align)
    return {
        (step, row): [tokens.tolist()]  # one batch an update
        for step in range(config.train.steps)
        for row, tokens in enumerate(next(loader)["inputs"])
    }


def rows_of(*folders):
    """The tokens by (step, row) that the processes of some runs have recorded."""
    found = {}
    for folder in folders:
        for path in folder.glob("records*"):
            for line in path.read_text().splitlines():
                step, row, tokens = json.loads(line)
                assert found.setdefault((step, row), tokens) == tokens
    return found
