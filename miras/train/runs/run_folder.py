"""The folder of a run: its paths, its config, and the lock of the process that writes to it.

    config.json  config_hash  data.json  metrics.jsonl  tensorboard/  checkpoints/  loss.png
    checkpoint_times.jsonl  status.json  log.txt  stacks.txt  lock  plugins/  origin.json
    tokenizer.model or tokenizer.json

Process 0 writes them. Process I of several has only a log_process_I.txt and a stacks_process_I.txt.

The files are written by `loggers`, `checkpoints`, `plot` and `provenance`. A folder on an object
store is a local copy that `mirror` uploads; `lease` says how one writer is sure of it. A folder on
a disk that several hosts share has a lease, too, once `RunFolder.share` has made its `writer/`.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from miras.config import config_hash, from_json, plugins, to_json
from miras.errors import ConfigError
from miras.runtime import processes, signals
from miras.runtime.files import expand_home, is_leftover, write_atomically
from miras.runtime.paths import is_remote
from miras.train.checkpoints.checkpointer import rename_damaged, saved_steps
from miras.train.config import RunConfig
from miras.train.runs import disk_lock, provenance
from miras.train.runs.disk_lock import DiskLock, cannot_write
from miras.train.runs.mirror import Mirror
from miras.train.runs.mutable_fields import resumed_config, short_hash
from miras.train.runs.shared_folder import TOKEN, check_seen

_WRITTEN_BEFORE_CONFIG = {
    *disk_lock.FILES,
    TOKEN,
    "config_hash",
    "config.json.new",
    "plugins",
    *provenance.FILES,
}


class RunFolder:
    """The paths in the folder of a run. The constructor does not access the disk.

    Of a folder on an object store, the constructor makes a local copy, in which the paths lie.

    Attributes:
        shown: the folder as the user knows it: its path, or its URL.
        shared: whether all processes of the run see the files in `path`.

    Raises:
        ConfigError: the home folder of a ~name does not exist, or an object store cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._mirror = Mirror(os.fspath(path)) if is_remote(path) else None
        self.path = expand_home(path) if self._mirror is None else self._mirror.local
        self.shown = self.path if self._mirror is None else self._mirror.url
        self.shared = self._mirror is None or processes.count() == 1
        self.config = self.path / "config.json"
        self.hash = self.path / "config_hash"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.plot = self.path / "loss.png"
        number = processes.index()
        self.log = self.path / _of_process("log.txt", number)
        self.stacks = self.path / _of_process("stacks.txt", number)
        self._lock = DiskLock(self.path)
        self.plugins = self.path / "plugins"
        self.origin = self.path / "origin.json"

    def holds_run(self) -> bool:
        """Whether the folder has the config of a run; False also for an invalid path."""
        try:
            return self.config.is_file()
        except (OSError, ValueError):
            return False

    def load_plugins(self) -> None:
        """Load the plugins that the folder holds; none, if it holds no run yet.

        Raises:
            ConfigError: a plugin has changed, cannot be loaded, or is not trusted by the user
                (`miras.config.trust`).
        """
        provenance.check_plugins(self.path)
        plugins.restore(self.plugins)

    def read_relocated_config(self) -> RunConfig:
        """As `read_config`, with the folder's copy of the tokenizer and absolute paths."""
        return provenance.relocate(self.path, self.read_config())

    def read_config(self) -> RunConfig:
        """The config of the run; its plugins are loaded.

        Raises:
            ConfigError: the folder holds no run, or the config or a plugin cannot be loaded.
        """
        if not self.holds_run():
            raise ConfigError(
                f"{self.shown} is not the folder of a run, since it has no config.json: give a "
                "folder that `miras train` wrote."
            )
        self.load_plugins()
        try:
            return from_json(RunConfig, self.config.read_text())
        except (ConfigError, ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"{self.config} cannot be read ({str(error).rstrip('.')}): it is damaged, of "
                "another version of miras, or has a member of your own; load that with --plugin "
                "FILE.py, or give another run folder."
            ) from error

    def check(self, config: RunConfig) -> RunConfig:
        """The config with which the run of the folder resumes or starts; nothing is written.

        Raises:
            ConfigError: the folder belongs to a run whose config differs in fields that cannot
                change (`resume.resumed_config`), or it holds something else.
        """
        try:
            self.path.exists()
        except OSError as error:
            raise ConfigError(
                f"{str(self.path)[:60]!r}... cannot be the folder of a run ({error.strerror}): "
                "give another with --out."
            ) from error
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file: give a folder for the run.")
        if self.config.exists():
            saved = self.read_config()
            provenance.check_tokenizer(self.path, saved)
            done = max(saved_steps(self.checkpoints), default=0)
            return resumed_config(saved, config, done, str(self.shown))
        if self.path.is_dir() and not all(map(_is_ours, self.path.iterdir())):
            raise ConfigError(
                f"{self.shown} is not empty and holds no run: give another folder with --out."
            )
        return config

    def check_processes(self) -> None:
        """Check that all processes of the run see the folder; process 0 creates it.

        Raises:
            ConfigError: some process does not.
        """
        if self._mirror is None:
            check_seen(self.path)
        else:
            processes.check_equal(
                {"the run folder": str(self.shown)}, "give the same --out on every host."
            )

    def fetch(self, step: int) -> None:
        """Download a checkpoint, if the folder is on an object store and it is not here yet.

        Raises:
            DamagedError: it is incomplete.
            ConfigError: the store cannot be reached.
        """
        if self._mirror is not None:
            self._mirror.fetch(step)

    def empty(self, step: int) -> None:
        """Delete the local copy of a checkpoint, if the folder is on an object store."""
        if self._mirror is not None:
            self._mirror.empty(step)

    def rename_damaged(self, damaged: dict[int, str]) -> str:
        """As `checkpointer.rename_damaged`; all processes must call it.

        Raises:
            ConfigError: a checkpoint cannot be renamed.
        """

        def rename() -> str:
            renamed = rename_damaged(self.checkpoints, damaged)
            if self._mirror is not None:
                self._mirror.set_aside(damaged)
            return renamed

        return processes.decide(rename) if self.shared else processes.together(rename)

    def check_writer(self) -> None:
        """Check that no other run has taken over a locked folder.

        In a run of several processes on an object store, all must call it, between saves: it also
        completes the checkpoints that they have saved.

        Raises:
            ConfigError: one has, on an object store or a shared disk.
        """
        if not self.shared:
            self._complete()
        elif self._mirror is not None:
            self._mirror.check()
        else:
            self._lock.check()

    def share(self) -> None:
        """Let several hosts write to the folder, one at a time (`DiskLock.share`).

        Raises:
            ConfigError: the folder cannot be written.
        """
        if self._mirror is None:
            self._lock.share()

    @contextlib.contextmanager
    def completed(self) -> Iterator[None]:
        """Complete the checkpoints at the end of a block, which all processes leave alike.

        After an error in some process nothing is done.

        Raises:
            ConfigError: some process cannot upload its part.
        """
        try:
            yield
        except signals.Interrupted:
            self._complete(last=True)
            raise
        self._complete(last=True)

    def _complete(self, last: bool = False) -> None:
        if self._mirror is not None and not self.shared:
            self._mirror.complete(last)

    @contextlib.contextmanager
    def locked(self) -> Iterator[tuple[int, str] | None]:
        """Lock the folder for this process; the folder is created if it does not exist.

        A killed run leaves no lock behind (`DiskLock`). On an object store the lock is a lease
        (`lease`), and at the end what has changed is uploaded.

        Yields:
            What the other processes of the run need for `joined`.

        Raises:
            InUseError: another process holds the lock.
            ConfigError: the folder cannot be written.
        """
        with self._lock.held() if self._mirror is None else self._mirror.written() as lease:
            yield lease

    @contextlib.contextmanager
    def joined(self, lease: tuple[int, str] | None) -> Iterator[None]:
        """Let the processes other than 0 upload what they write, if each has its own copy.

        Args:
            lease: what `locked` has yielded in process 0.

        Raises:
            ConfigError: the store cannot be reached.
        """
        if self._mirror is None or processes.first():
            yield
        else:
            with self._mirror.written(lease):
                yield

    def write_config(self, config: RunConfig, tokenizer: str | None = None) -> None:
        """Save the config, its hash, the plugins and the tokenizer, unless they are unchanged.

        Args:
            config: of the run.
            tokenizer: the sha256 of the tokenizer file; None for bytes.

        Raises:
            ConfigError: a file cannot be written.
        """
        new = not self.config.exists()
        if not new and self.hash.exists() and self.read_config() == config:
            return
        try:
            plugins.save(self.plugins, config)
            if new:
                provenance.save(self.path, config, tokenizer)
            write_atomically(self.hash, config_hash(config) + "\n")
            write_atomically(self.config, to_json(config) + "\n")
        except OSError as error:
            raise ConfigError(cannot_write(self.path, error)) from error


def _of_process(name: str, number: int) -> str:
    """The name of a file that each process of a run writes for itself."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}_process_{number}{dot}{suffix}" if number else name


def _is_ours(path: pathlib.Path) -> bool:
    """Whether a run that was killed before it wrote its config may leave a file of this name."""
    return path.name in _WRITTEN_BEFORE_CONFIG or is_leftover(path.name)


def default_folder(name: str, config: RunConfig) -> str:
    """The default folder of a config, which is unique to it.

    A run that an earlier version started in `runs/NAME` is resumed there.
    """
    before = RunFolder(f"runs/{name}")
    if before.holds_run():
        with contextlib.suppress(ConfigError):
            before.check(config)
            return str(before.path)
    return f"runs/{name}-{short_hash(config)}"
