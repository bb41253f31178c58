"""A run whose output, title or picture fails goes on to its end, and says so in its folder."""

import errno
import io
import shutil
import sys

import pytest
from rich.console import Console

from miras.cli.main import main
from miras.train import train, trainer
from miras.train.checkpoints import checkpointer as checkpoint


class Closed(io.StringIO):
    """A pipe whose reader has gone after its first line."""

    def write(self, text):
        if "\n" in self.getvalue():
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        return super().write(text)


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run whose reader left after a line, in a folder whose name is no mathematics."""
    out = tmp_path_factory.mktemp("runs") / "$x^{$ é"
    train(tiny(), out, console=Console(file=Closed()))
    return out


def test_a_run_outlives_its_reader_and_its_name(run):
    assert checkpoint.saved_steps(run / "checkpoints")[-1] == 8
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    log = (run / "log.txt").read_text("utf-8").splitlines()
    steps = [line.partition("/8")[0] for line in log if "/8" in line]
    assert steps[-3:] == ["step 4", "step 6", "step 8"]


@pytest.mark.parametrize("how", ["drawing", "a folder", "a link"])
def test_a_picture_that_fails_is_a_warning(tiny, run, tmp_path, monkeypatch, console, how):
    out = shutil.copytree(run, tmp_path / "run")
    (out / "log.txt").unlink()
    picture = out / "loss.png"
    if how == "drawing":
        monkeypatch.setattr(trainer, "loss_curves", lambda *_: 1 / 0)
    else:
        picture.unlink()
        picture.mkdir() if how == "a folder" else picture.symlink_to(tmp_path / "theirs")
    result = train(tiny(), out, console=console)
    assert result.resumed_from == 8
    warning = next(x for x in console.file.getvalue().splitlines() if x.startswith("warning"))
    assert f"{picture} could not be drawn" in warning
    assert (out / "log.txt").read_text() == warning + "\n"
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_text_is_generated_for_any_encoding(run, monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    assert main(["generate", str(run), "--prompt", "漢é", "--length", "8"]) == 0
    written = raw.getvalue().decode(encoding)
    assert written.startswith("\\u6f22" + ("é" if encoding == "latin-1" else "\\xe9"))


@pytest.mark.parametrize("command", ["eval", "generate", "inspect", "staleness"])
def test_commands_outlive_their_readers(run, tmp_path, monkeypatch, command):
    words = {
        "eval": ["--batches", "1"],
        "generate": ["--length", "2"],
        "inspect": ["--text", "ab", "--out", str(tmp_path / "page.html")],
        "staleness": ["--length", "8", "--chunks", "8", "--refine", "0", "--out", str(tmp_path)],
    }
    stream = Closed()
    stream.write("\n")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([command, str(run), *words[command]]) == 0
    assert stream.getvalue() == "\n"
    assert not list(tmp_path.glob(".*"))
    if command == "inspect":
        assert (tmp_path / "page.html").stat().st_size > 1000
    if command == "staleness":
        assert (tmp_path / "staleness.png").read_bytes().startswith(b"\x89PNG")
