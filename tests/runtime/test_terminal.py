"""Closed pipes, full disks and poor encodings lose output, and end nothing."""

import errno
import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from miras.cli.main import main
from miras.runtime.terminal import TolerantStream, tolerant, tolerant_output

WORDS = ["presets", "--help"]


class Broken(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, code=errno.EPIPE, at="write"):
        super().__init__()
        self.code, self.at = code, at

    def write(self, text):
        if self.at == "write":
            raise OSError(self.code, os.strerror(self.code))
        return len(text)

    def flush(self):
        if self.at == "flush":
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("at", ["write", "flush"])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_cannot_be_written_is_dropped(monkeypatch, code, at, name):
    monkeypatch.setattr(sys, name, Broken(code, at))
    with tolerant_output():
        stream = getattr(sys, name)
        for _ in range(3):
            print("word", file=stream, flush=True)
        assert stream.dropped
        Console(file=None if name == "stdout" else stream).print("more")
    assert main(WORDS) == 0


def test_a_closed_stream_is_one_that_cannot_be_written(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    assert main(WORDS) == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main(WORDS) == 0
    assert sys.stdout is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_encoding_lacks_are_escaped(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    text = "é 漢 \udcff"
    with tolerant_output():
        print(text)
        Console().print(text)
    written = raw.getvalue().decode(encoding)
    assert written.splitlines()[0] == text.encode(encoding, "backslashreplace").decode(encoding)
    assert len(written.splitlines()) == 2


def test_the_streams_are_given_back_and_wrapped_once(capsys):
    before = sys.stdout, sys.stderr
    with tolerant_output(), tolerant_output():
        assert isinstance(sys.stdout, TolerantStream)
        assert sys.stdout._stream is before[0]
        print("said")
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "said\n"


def test_a_console_of_its_own_is_tolerant_too():
    console = Console(file=Broken())
    before = console.file
    with tolerant(console):
        console.print("lost")
        assert console.file.dropped
    assert console.file is before


@pytest.mark.multiprocess
@pytest.mark.parametrize("where", ["closed pipe", "/dev/full"])
def test_a_command_ends_well_whatever_its_output(where):
    """Also when the interpreter flushes what is left."""
    command = [sys.executable, "-m", "miras", "--help"]
    if where == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(where, os.O_WRONLY)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
