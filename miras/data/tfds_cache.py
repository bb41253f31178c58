"""TFDS builders of data sets that are made here: prepared once, whole or not at all.

What is in the data sets is the business of `local_text` and `task_rows`.
"""

import contextlib
import io
import json
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any, cast

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from miras.errors import ConfigError

_LOG = logging.getLogger(__name__)


class OfflineInfo(tfds.core.DatasetInfo):
    """Keeps TFDS from asking its public bucket about a data set that only exists here."""

    def initialize_from_bucket(self) -> None:
        """Ask nothing."""


def discard_damaged(folder: pathlib.Path) -> None:
    """Removes a prepared data set that cannot be read, so that it is prepared anew.

    Only what says how much there is and the ends of what is read are looked at.
    """
    if not folder.is_dir():
        return
    try:
        with _quiet():
            builder = cast(Any, tfds.builder_from_directory(str(folder)))
            for split in builder.info.splits:
                source = builder.as_data_source(split)
                for n in {0, len(source) - 1} if len(source) else ():
                    if None in source[n].values():  # how a file that is cut short reads
                        raise ValueError(f"record {n} is not there")
            for path in folder.glob("*.json"):
                json.loads(path.read_text("utf-8"))
            if builder.info.splits:
                return
        reason = "it holds nothing"
    except Exception as error:  # TFDS and ArrayRecord raise all kinds on damaged files
        reason = " ".join(str(error).split())[:200]
    _LOG.warning("the prepared data in %s is damaged (%s), and is made anew", folder, reason)
    shutil.rmtree(folder, ignore_errors=True)


def prepared(
    make: Callable[[], tfds.core.DatasetBuilder], what: str, cache: pathlib.Path
) -> tfds.core.DatasetBuilder:
    """Returns a builder's data set, made on the first call and found on later ones.

    TFDS writes to a temporary folder and renames it when complete, so an interrupted run leaves
    nothing that a later one would read.

    Args:
        make: the builder, anew.
        what: the data set's name in the log.
        cache: folder of prepared data sets; made if missing.

    Raises:
        ConfigError: as the builder does, or the cache cannot be written.
    """
    try:
        with _quiet():
            builder = make()
        if builder.data_path.exists():
            return builder
        _LOG.info("preparing %s in %s", what, builder.data_dir)
        try:
            with _quiet():
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
        except (OSError, RuntimeError):
            # Another process may have finished the same data set first; its copy is as good.
            if not builder.data_path.exists():
                raise
            with _quiet():
                builder = make()
        return builder
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"the data cache {str(cache)!r} cannot be written ({error}): free some space there, or "
            "set data.cache or MIRAS_CACHE to a folder you can write to."
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hushes TFDS, which speaks of downloads on both streams and warns of unlisted configs."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)
