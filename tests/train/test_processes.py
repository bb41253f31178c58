"""Real processes: a run on several ends as one on a single process, whatever happens to one."""

import dataclasses
import json
import re
import signal
import subprocess

import numpy as np
import pytest

from miras.parallel import MeshConfig
from miras.train import train
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.config import Parent
from miras.train.loggers.jsonl import read_metrics
from tests.train.processes_run import COMPILING, ROOT, rows_of, rows_of_the_loader, run

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]
STEPS = 12


@pytest.fixture(scope="module")
def config(tiny):
    """Eight rows, so that eight devices can share them."""
    return tiny(
        "data.batch=8", "train.logger=[\"jsonl\"]", steps=STEPS, log_every=1, eval_every=6,
        health_every=100, checkpoint_every=100, checkpoint_minutes=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """The folder of a run of one process."""
    return train(config, tmp_path_factory.mktemp("undisturbed") / "run").folder


def measured(out):
    """The measurements of a run by (step, kind), without speeds."""
    lines = [line for line in read_metrics(out / "metrics.jsonl") if line["kind"] != "start"]
    found = {(line["step"], line["kind"]): line for line in lines}
    assert len(found) == len(lines), "a measurement occurs twice"
    return found


def check_same(out, expected):
    found, wanted = measured(out), measured(expected)
    assert sorted(found) == sorted(wanted)
    for key, line in wanted.items():
        if key[1] != "health":
            # The order of sums over rows and of an all-reduce differs; a loss is about 6 nats.
            np.testing.assert_allclose(found[key]["loss"], line["loss"], rtol=2e-5)


def stopped_by_a_signal(config, out, folder, processes, by_slurm=False):
    """Train until process 1 receives SIGTERM in its third step; the step that all have saved."""
    ended = run(
        [config] * processes, [out] * processes, folder, at=2, who=1, sleep=0.3, by_slurm=by_slurm
    )
    saved = saved_steps(out / "checkpoints")[-1]
    assert 2 < saved < STEPS
    for number, process in enumerate(ended):
        assert process.code == 143, process
        assert process.said[-1].startswith(f"stopped by SIGTERM after step {saved} of {STEPS}")
        assert ("waiting for the other processes" in process.out) == (number == 0)
        assert (f"step  1/{STEPS}" in process.out) == (number == 0)
    return saved


def test_a_signal_to_one_stops_all_and_one_process_resumes(config, undisturbed, tmp_path):
    """Two processes under SLURM's variables; then one process, which has another mesh."""
    out = tmp_path / "run"
    saved = stopped_by_a_signal(config, out, tmp_path / "two", 2, by_slurm=True)
    assert not list(out.glob("*process*"))
    assert train(config, out).resumed_from == saved
    check_same(out, undisturbed)
    times = [json.loads(line) for line in (out / "checkpoint_times.jsonl").open()]
    order = [("save", 0), ("save", saved), ("restore", saved), ("save", STEPS)]
    assert [(line["what"], line["step"]) for line in times] == order
    assert all(line["seconds"] > 0 for line in times)
    found, wanted = rows_of(tmp_path / "two"), rows_of_the_loader(config)
    assert found == {key: tokens for key, tokens in wanted.items() if key[0] < saved}


@pytest.mark.exhaustive
@pytest.mark.parametrize("before", [2, 4])
@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("tensor", [1, 2])
def test_a_stopped_run_resumes_with_another_number(
    config, undisturbed, tmp_path, before, after, tensor
):
    out = tmp_path / "run"
    stopped_by_a_signal(config, out, tmp_path / "before", before)
    other = dataclasses.replace(config, mesh=MeshConfig(tensor=tensor))
    ended = run([other] * after, [out] * after, tmp_path / "after")
    assert [process.code for process in ended] == [0] * after, ended
    check_same(out, undisturbed)
    assert rows_of(tmp_path / "before", tmp_path / "after") == rows_of_the_loader(config)


@pytest.mark.exhaustive
def test_ctrl_c_and_a_signal_during_compilation_save_the_same_step(config, undisturbed, tmp_path):
    out = tmp_path / "run"
    ended = run(
        [config] * 2, [out] * 2, tmp_path / "a", at=2, who=1, number=signal.SIGINT, sleep=0.3
    )
    saved = saved_steps(out / "checkpoints")[-1]
    assert 2 < saved < STEPS
    assert [process.code for process in ended] == [143, 130], ended  # told by jax, and by Ctrl-C
    for process in ended:
        assert f"after step {saved} of {STEPS}" in process.said[-1]
    ended = run([config] * 2, [out] * 2, tmp_path / "b", at=COMPILING, who=1, sleep=0.3)
    assert [process.code for process in ended] == [143, 143], ended
    again = saved_steps(out / "checkpoints")[-1]
    assert saved < again < STEPS
    for process in ended:
        assert process.said[-1].startswith(f"stopped by SIGTERM after step {again} of {STEPS}")
    assert train(config, out).resumed_from == again
    check_same(out, undisturbed)


@pytest.mark.exhaustive
def test_the_watchdog_ends_a_run_that_waits_for_a_process_that_hangs(config, tmp_path):
    recipe = dataclasses.replace(config.train, watchdog_minutes=0.1)
    watched = dataclasses.replace(config, train=recipe)
    out = tmp_path / "run"
    ended = run([watched] * 2, [out] * 2, tmp_path / "a", at=2, who=1, number=signal.SIGSTOP)
    assert ended[0].code == 75, ended
    line = "has ended within 0.1 minutes (train.watchdog_minutes)"
    assert line in ended[0].err
    stacks = (out / "stacks.txt").read_text()
    assert line in stacks
    assert "trainer.py" in stacks


@pytest.mark.exhaustive
def test_the_clock_of_process_0_saves_in_all(config, undisturbed, tmp_path):
    """Age 0 is late after every step, and a step after one that saves does not save again."""
    recipe = dataclasses.replace(config.train, checkpoint_minutes=1e-9, keep=9)
    often = dataclasses.replace(config, train=recipe)
    out = tmp_path / "run"
    ended = run([often] * 2, [out] * 2, tmp_path / "a")
    assert [process.code for process in ended] == [0, 0], ended
    assert saved_steps(out / "checkpoints") == [0, 2, 4, 6, 8, 10, 12]
    check_same(out, undisturbed)


@pytest.mark.exhaustive
@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_resumes(config, undisturbed, tmp_path, who):
    often = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoint_every=2))
    out = tmp_path / "run"
    ended = run(
        [often] * 2, [out] * 2, tmp_path / "two", at=5, who=who, number=signal.SIGKILL, limit=120
    )
    assert ended[who].code == -signal.SIGKILL
    other = ended[1 - who]
    # jax itself ends a process with SIGABRT when process 0, with its coordination service, is gone.
    assert other.code == 75 or (who == 0 and other.code == -signal.SIGABRT), other
    assert "another process of the run has ended" in other.err or "another task died" in other.err
    assert saved_steps(out / "checkpoints")[-1] < STEPS
    ended = run([often] * 2, [out] * 2, tmp_path / "again")
    assert [process.code for process in ended] == [0, 0], ended
    check_same(out, undisturbed)


@pytest.mark.exhaustive
def test_processes_that_differ_say_so_before_the_first_step(config, text, tmp_path):
    out, other = tmp_path / "run", tmp_path / "elsewhere"
    faster = dataclasses.replace(config, train=dataclasses.replace(config.train, learning_rate=0.1))
    local = dataclasses.replace(config, data=dataclasses.replace(config.data, source="text"))
    homes = [tmp_path / "host0", tmp_path / "host1"]  # relative paths name other files there
    for home, end in zip(homes, ".!"):
        (home / "text").mkdir(parents=True)
        for path in text.iterdir():
            (home / "text" / path.name).write_text(path.read_text()[:-1] + end)
    cases = {
        "differ in its config (train.learning_rate: 0.003 -> 0.1": ([config, faster], [out, out]),
        "is not the run folder that process 0 sees": ([config, config], [out, other]),
        "differ in the data: ": ([local, local], [out, out]),
    }
    for number, (words, (configs, outs)) in enumerate(cases.items()):
        for process in run(configs, outs, tmp_path / str(number), within=homes):
            assert process.code == 2, process
            assert words in process.said[-1], process
    assert not (out / "config.json").exists()


@pytest.mark.exhaustive
def test_two_processes_start_from_another_run(config, undisturbed, tmp_path):
    child = dataclasses.replace(config, parent=Parent(str(undisturbed), STEPS))
    ended = run([child] * 2, [tmp_path / "two"] * 2, tmp_path / "records")
    assert [process.code for process in ended] == [0, 0], ended
    check_same(tmp_path / "two", train(child, tmp_path / "one").folder)


def test_the_script_for_slurm_is_valid_and_requeues():
    page = (ROOT / "docs" / "scaling.md").read_text()
    (script,) = re.findall(r"^```shell\n(#!/bin/bash\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "#SBATCH --requeue" in script
    # srun and scontrol are functions here: what the script does with each exit code
    for code in (0, 1, 2, 75, 134, 137, 143):
        functions = f"srun() {{ return {code}; }}\nscontrol() {{ echo $1 $2; }}\nSLURM_JOB_ID=7\n"
        ended = subprocess.run(["bash"], input=functions + script, text=True, capture_output=True)
        assert ended.returncode == code
        assert ended.stdout == ("" if code < 3 else "requeue 7\n")
