"""The plugins of a grid, in its folder on a disk or on an object store.

What is in them, and when they may be executed, is in `miras.config.plugins`.
"""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath

from miras.config import plugins
from miras.errors import ConfigError
from miras.runtime import paths

if TYPE_CHECKING:
    from miras.train import RunConfig


def save(folder: epath.Path, configs: "Sequence[RunConfig]") -> None:
    """Save the plugins that configs need.

    Raises:
        OSError: a file cannot be written.
        ConfigError: the object store cannot be reached.
    """
    if not paths.is_remote(folder):
        plugins.save(pathlib.Path(folder), *configs)
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = pathlib.Path(scratch, folder.name)
        plugins.save(local, *configs)
        for path in sorted(local.glob("*")):
            paths.write(folder / path.name, path.read_bytes())


def restore(folder: epath.Path) -> None:
    """Load the plugins that `save` wrote, if any.

    Raises:
        ConfigError: as `plugins.restore`, or the object store cannot be reached.
    """
    if not paths.is_remote(folder):
        plugins.restore(pathlib.Path(folder))
        return
    names = [name for name, is_folder in paths.entries(folder).items() if not is_folder]
    if not names:
        return
    with tempfile.TemporaryDirectory() as scratch:
        local = pathlib.Path(scratch, folder.name)
        for name in names:
            paths.download(folder / name, local / name)
        try:
            plugins.restore(local)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(local), str(folder))) from error
