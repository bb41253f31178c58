"""`train`: starts a run in a folder, or resumes it; the steps themselves are in `trainer`."""

import contextlib
import dataclasses
import os

from rich.console import Console

from miras.config.trust import trusting
from miras.data.text import read_report
from miras.errors import ConfigError
from miras.runtime import processes, signals
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant
from miras.train.checkpoints import checkpointer
from miras.train.config import RunConfig
from miras.train.interval_means import Utilization
from miras.train.runs import provenance, status
from miras.train.runs.run_folder import RunFolder
from miras.train.runs.shared_folder import check_agreement
from miras.train.trainer import Result, Trainer


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    console: Console | None = None,
    trust_plugins: bool = False,
    utilization: Utilization | None = None,
) -> Result:
    """Train a model, or resume the run in a folder.

    A resumed run ends with the same parameters as an uninterrupted one, bit for bit on the same
    machine.

    In a run of several processes (`jax.distributed`), all of them call this with the same
    arguments. Process 0 alone writes files, but for its part of the checkpoints, and prints.

    Args:
        config: the run.
        out: its folder; created if it does not exist.
        console: where progress is printed; the standard output by default.
        trust_plugins: execute the code in the folder's `plugins/` even if this user has not trained
            with it.
        utilization: what the model FLOPs utilisation is computed from, see
            `miras.analysis.utilization`; None leaves it out of the log.

    Raises:
        ConfigError: the text cannot be used, the folder belongs to another run or is in use, or the
            disk is full or read-only. Existing checkpoints are left as they are.
        NonFiniteError: a step was not finite; it is neither applied nor saved.
        Interrupted: after SIGINT or SIGTERM (in the main thread), once the current step is saved;
            it is a `SystemExit` of code 130 or 143. A second signal ends the process at once.
        ProcessLostError: another process of the run has ended.
    """
    folder = RunFolder(out)
    console = console or Console(quiet=not processes.first())
    with processes.collective(), contextlib.ExitStack() as stack:
        folder.check_processes()
        with trusting(trust_plugins):
            config = processes.together(lambda: folder.check(config))
            digest = None if folder.config.exists() else provenance.tokenizer_hash(config)
            trainer = processes.together(
                lambda: Trainer(_with_kept_tokenizer(folder, config), folder, console, utilization)
            )
        check_agreement(config, trainer.data.get_state())
        # Process 0 alone writes; it does so after all others have read.
        lease = processes.decide(lambda: stack.enter_context(folder.locked()))
        processes.together(lambda: stack.enter_context(folder.joined(lease)))
        with trusting(trust_plugins):
            processes.decide(lambda: _write_config(folder, config, digest))
        try:
            processes.decide(
                lambda: write_atomically(folder.data, read_report.to_json(trainer.read_reports))
            )
            with (
                signals.handled(),
                tolerant(console),
                status.recorded(folder.path),
                folder.completed(),
            ):
                result = trainer.run()
            if processes.first() and not folder.origin.exists():  # a run of an earlier version
                provenance.save(folder.path, config, provenance.tokenizer_hash(config))
            return result
        except OSError as error:
            raise ConfigError(
                f"the run in {folder.shown} stopped at a disk error ({error}); "
                f"{checkpointer.last_good(folder.checkpoints)}: free space or make the folder "
                "writable, and repeat the command to resume."
            ) from error


def _write_config(folder: RunFolder, config: RunConfig, digest: str | None) -> None:
    folder.check(config)  # another command may have started a run since
    folder.write_config(config, digest)


def _with_kept_tokenizer(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The config with the folder's copy of the tokenizer.

    The task is left as given, since it identifies the prepared rows.
    """
    data = provenance.relocate(folder.path, config).data
    return dataclasses.replace(config, data=dataclasses.replace(data, task=config.data.task))
