"""Data sets that are prepared once by TFDS and cached on disk.

The builders are in `text.local_text` and `task_rows`.
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
    """Prevents TFDS from querying its public bucket for a data set that only exists locally."""

    def initialize_from_bucket(self) -> None:
        """Do nothing."""


def discard_damaged(folder: pathlib.Path) -> None:
    """Deletes a prepared data set that cannot be read, so that it is prepared again.

    Only the metadata, and the first and the last record of each split, are checked.
    """
    if not folder.is_dir():
        return
    try:
        with _silence_tfds():
            builder = cast(Any, tfds.builder_from_directory(str(folder)))
            for split in builder.info.splits:
                source = builder.as_data_source(split)
                for n in {0, len(source) - 1} if len(source) else ():
                    if None in source[n].values():  # what a truncated file returns
                        raise ValueError(f"record {n} is missing")
            for path in folder.glob("*.json"):
                json.loads(path.read_text("utf-8"))
            if builder.info.splits:
                return
        reason = "it is empty"
    except Exception as error:  # TFDS and ArrayRecord raise various exceptions on damaged files
        reason = " ".join(str(error).split())[:200]
    _LOG.warning("the prepared data in %s is damaged (%s) and is prepared again", folder, reason)
    shutil.rmtree(folder, ignore_errors=True)


def prepare_once(
    make: Callable[[], tfds.core.DatasetBuilder], what: str, cache: pathlib.Path
) -> tfds.core.DatasetBuilder:
    """Returns a builder whose data set is prepared, on the first call or an earlier one.

    TFDS writes to a temporary folder and renames it once complete, so an interrupted process leaves
    no incomplete data set.

    Args:
        make: constructs the builder.
        what: the name of the data set in the log.
        cache: folder of prepared data sets; created if it does not exist.

    Raises:
        ConfigError: the builder raises it, or the cache cannot be written.
    """
    try:
        with _silence_tfds():
            builder = make()
        if builder.data_path.exists():
            return builder
        _LOG.info("preparing %s in %s", what, builder.data_dir)
        try:
            with _silence_tfds():
                builder.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
                )
        except (OSError, RuntimeError):
            # Another process may have prepared the same data set meanwhile.
            if not builder.data_path.exists():
                raise
            with _silence_tfds():
                builder = make()
        return builder
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"the data cache {str(cache)!r} cannot be written ({error}): free some space there, or "
            "set data.cache or MIRAS_CACHE to a folder you can write to."
        ) from error


@contextlib.contextmanager
def _silence_tfds() -> Iterator[None]:
    """Suppresses the output of TFDS: messages on downloads, warnings about unlisted configs."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)
