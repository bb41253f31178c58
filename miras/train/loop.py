"""`train`: starts a run in a folder, or resumes it; the steps themselves are in `trainer`."""

import dataclasses
import os

from rich.console import Console

from miras.config.trust import trusting
from miras.data.text import read_report
from miras.errors import ConfigError
from miras.runtime import signals
from miras.runtime.files import write_atomically
from miras.runtime.terminal import tolerant
from miras.train.checkpoints import checkpointer
from miras.train.config import RunConfig
from miras.train.runs import provenance
from miras.train.runs.run_folder import RunFolder
from miras.train.trainer import Result, Trainer


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    console: Console | None = None,
    trust_plugins: bool = False,
) -> Result:
    """Train a model, or resume the run in a folder.

    A resumed run ends with the same parameters as an uninterrupted one, bit for bit on the same
    machine.

    Args:
        config: the run.
        out: its folder; created if it does not exist.
        console: where progress is printed; the standard output by default.
        trust_plugins: execute the code in the folder's `plugins/` even if this user has not trained
            with it.

    Raises:
        ConfigError: the text cannot be used, the folder belongs to another run or is in use, or the
            disk is full or read-only. Existing checkpoints are left as they are.
        NonFiniteError: a step was not finite; it is neither applied nor saved.
        Interrupted: after SIGINT or SIGTERM (in the main thread), once the current step is saved;
            it is a `SystemExit` of code 130 or 143. A second signal ends the process at once.
    """
    folder = RunFolder(out)
    console = console or Console()
    with trusting(trust_plugins):
        config = folder.check(config)
        digest = None if folder.config.exists() else provenance.tokenizer_hash(config)
        trainer = Trainer(_with_kept_tokenizer(folder, config), folder, console)
    with folder.locked():
        with trusting(trust_plugins):
            folder.check(config)  # another process may have started a run since
        folder.write_config(config, digest)
        try:
            write_atomically(folder.data, read_report.to_json(trainer.read_reports))
            with signals.handled(), tolerant(console):
                result = trainer.run()
            if not folder.origin.exists():  # a run of an earlier version
                provenance.save(folder.path, config, provenance.tokenizer_hash(config))
            return result
        except OSError as error:
            raise ConfigError(
                f"the run in {folder.path} stopped at a disk error ({error}); "
                f"{checkpointer.last_good(folder.checkpoints)}: free space or make the folder "
                "writable, and repeat the command to resume."
            ) from error


def _with_kept_tokenizer(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The config with the folder's copy of the tokenizer.

    The task is left as given, since it identifies the prepared rows.
    """
    data = provenance.relocate(folder.path, config).data
    return dataclasses.replace(config, data=dataclasses.replace(data, task=config.data.task))
