"""What commands write goes to regular files only: nothing planted is followed or replaced."""

import os

import pytest

from miras.analysis.ablate.folder import GridFolder
from miras.analysis.ablate.processes import RunWork, start
from miras.analysis.ablate.worker_log import WorkerLog
from miras.cli.eval import _write
from miras.cli.inspect import _write as write_page
from miras.errors import ConfigError
from miras.train.loggers.jsonl import Metrics
from miras.train.runs.run_folder import RunFolder


class Some:
    """Stands for results."""

    def to_json(self):
        return "{}"


def lock(folder):
    with RunFolder(folder).locked():
        pass


def log(folder):
    (folder / "logs").mkdir(exist_ok=True)
    grid, work = GridFolder(folder), RunWork("slug", "{}", "hash", 1)
    start(work, grid, {}, WorkerLog(work.log(grid)))


WRITERS = {
    "lock": ("lock", lock),
    "metrics": ("metrics.jsonl", lambda f: Metrics(f / "metrics.jsonl", f / "tensorboard", 0)),
    "log of a grid's run": ("logs/slug.log", log),
    "page": ("page.html", lambda f: write_page(f / "page.html", "<html>")),
    "results": ("niah.json", lambda f: _write(Some(), f / "niah.json")),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_regular_files_are_written(tmp_path, name, kind):
    folder = tmp_path / "run"
    folder.mkdir()
    where, write = WRITERS[name]
    path, theirs = folder / where, tmp_path / "theirs"
    path.parent.mkdir(exist_ok=True)
    if kind == "link":
        theirs.write_text("theirs")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(theirs)
    before = os.lstat(path).st_mode
    with pytest.raises(ConfigError, match="not a regular file"):
        write(folder)
    assert os.lstat(path).st_mode == before
    assert theirs.exists() == (kind == "link")
    if kind == "link":
        assert theirs.read_text() == "theirs"
