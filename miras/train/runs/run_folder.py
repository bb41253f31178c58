"""A run's folder: which config it belongs to, and who is writing to it.

    config.json  config_hash  data.json  metrics.jsonl  tensorboard/  checkpoints/  loss.png
    log.txt  lock  plugins/  origin.json  tokenizer.model or tokenizer.json

What is in the files is the business of `metrics`, `checkpoint`, `plot` and `origin`.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from miras.config import config_hash, from_json, plugins, to_json
from miras.errors import ConfigError
from miras.runtime.files import check_target, expanded, is_leftover, write_whole
from miras.train.runs import provenance
from miras.train.checkpoints.checkpointer import saved_steps
from miras.train.config import RunConfig
from miras.train.runs.resume import continued, short_hash

_OURS_BEFORE_CONFIG = {"lock", "config_hash", "config.json.new", "plugins", *provenance.NAMES}


class RunFolder:
    """The paths in a run's folder. Making one touches nothing."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = expanded(path)
        self.config = self.path / "config.json"
        self.hash = self.path / "config_hash"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.plot = self.path / "loss.png"
        self.log = self.path / "log.txt"
        self.lock = self.path / "lock"
        self.plugins = self.path / "plugins"
        self.origin = self.path / "origin.json"

    def holds_run(self) -> bool:
        """Whether there is a run's config; False too for a path that cannot be."""
        try:
            return self.config.is_file()
        except (OSError, ValueError):
            return False

    def load_plugins(self) -> None:
        """Load the plugins that the folder keeps; none, where it holds no run yet.

        Raises:
            ConfigError: for a plugin that has changed, that cannot be loaded, or that the user has
                not trusted (`miras.config.trust`).
        """
        provenance.check_plugins(self.path)
        plugins.restore(self.plugins)

    def read_own_config(self) -> RunConfig:
        """As `read_config`, with the folder's own tokenizer and absolute paths (`origin`)."""
        return provenance.own(self.path, self.read_config())

    def read_config(self) -> RunConfig:
        """The config that the run was started with; its plugins are loaded.

        Raises:
            ConfigError: where the folder is not one of a run, or a plugin cannot be loaded.
        """
        if not self.holds_run():
            raise ConfigError(
                f"{self.path} is not a run's folder, since it has no config.json: give the folder "
                "that `miras train` wrote."
            )
        self.load_plugins()
        try:
            return from_json(RunConfig, self.config.read_text())
        except (ConfigError, ValueError, TypeError, OSError) as error:
            raise ConfigError(
                f"{self.config} cannot be read ({str(error).rstrip('.')}): it is damaged, of "
                "another version of miras, or has a member of your own, whose file --plugin takes; "
                "else give another run folder."
            ) from error

    def check(self, config: RunConfig) -> RunConfig:
        """The config with which the folder's run goes on, or starts; nothing is written.

        Raises:
            ConfigError: where the folder is another run's, showing each field that differs and has
                to stay (`resume.continued`), or something else.
        """
        try:
            self.path.exists()
        except OSError as error:
            raise ConfigError(
                f"{str(self.path)[:60]!r}... cannot be a run's folder ({error.strerror}): give "
                "another with --out."
            ) from error
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file: give a folder for the run.")
        if self.config.exists():
            saved = self.read_config()
            provenance.check_path(self.path, saved)
            done = max(saved_steps(self.checkpoints), default=0)
            return continued(saved, config, done, str(self.path))
        if self.path.is_dir() and not all(map(_is_ours, self.path.iterdir())):
            raise ConfigError(
                f"{self.path} is not empty and holds no run: give another folder with --out."
            )
        return config

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; made if need be.

        The operating system frees the lock of a process that ends in any way, so what a killed run
        leaves behind is taken over.

        Raises:
            ConfigError: where another process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            check_target(self.lock)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(self.lock, flags, 0o644)
        except OSError as error:
            raise ConfigError(cannot_write(self.path, error)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise ConfigError(cannot_write(self.lock, error)) from error
                raise ConfigError(
                    f"{self.path} is in use by the run of process {_read_pid(handle)}: wait for it "
                    "to end, or give another folder with --out."
                ) from error
            try:
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
            except OSError as error:
                raise ConfigError(cannot_write(self.lock, error)) from error
            yield
        finally:
            os.close(handle)

    def write_config(self, config: RunConfig, tokenizer: str | None = None) -> None:
        """Save the config, its hash, its plugins and its tokenizer, where they are not saved as
        they are.

        Args:
            config: of the run.
            tokenizer: the sha256 of its tokenizer's file; None for bytes.

        Raises:
            ConfigError: where they cannot be written.
        """
        new = not self.config.exists()
        if not new and self.hash.exists() and self.read_config() == config:
            return
        try:
            plugins.save(self.plugins, config)
            if new:
                provenance.keep(self.path, config, tokenizer)
            write_whole(self.hash, config_hash(config) + "\n")
            write_whole(self.config, to_json(config) + "\n")
        except OSError as error:
            raise ConfigError(cannot_write(self.path, error)) from error


def _is_ours(path: pathlib.Path) -> bool:
    """Whether a run that was killed at its very start leaves a file of this name."""
    return path.name in _OURS_BEFORE_CONFIG or is_leftover(path.name)


def default_folder(name: str, config: RunConfig) -> str:
    """The folder of a config that is given none: another one for each config.

    A run that an earlier version began in `runs/NAME` goes on there.
    """
    before = RunFolder(f"runs/{name}")
    if before.holds_run():
        with contextlib.suppress(ConfigError):
            before.check(config)
            return str(before.path)
    return f"runs/{name}-{short_hash(config)}"


def cannot_write(path: pathlib.Path, error: OSError) -> str:
    """The sentence for a path that the disk or its permissions refuse."""
    return (
        f"cannot write {path} ({error.strerror or error}): free space or make it writable, or "
        "give another folder with --out."
    )


def _read_pid(handle: int) -> str:
    """The process id in a lock that was just found taken; its holder may be about to write it."""
    for _ in range(10):
        if text := os.pread(handle, 32, 0).decode(errors="replace").strip():
            return text
        time.sleep(0.01)
    return "unknown"
