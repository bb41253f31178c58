import errno
import os
import pathlib
import socket
import stat
import threading

import pytest

from miras.errors import ConfigError
from miras.runtime.files import check_target, expand_home, write_atomically


def _symlink(path):
    path.with_name("target").write_text("theirs")
    path.symlink_to("target")


def _dangling(path):
    path.symlink_to("nothing")


def _socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(".", os.O_RDONLY)
        os.chdir(path.parent)  # a socket's path is at most 108 bytes
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)
            os.close(here)


IRREGULAR = {
    "folder": lambda path: path.mkdir(),
    "link": _symlink,
    "dangling link": _dangling,
    "pipe": os.mkfifo,
    "socket": _socket,
}


@pytest.mark.parametrize("content", [b"\xff\x00", "é", lambda file: file.write(b"by a function")])
def test_what_is_written_replaces_what_was_there(tmp_path, content):
    path = tmp_path / "file"
    for _ in range(2):
        write_atomically(path, content)
        expected = content if isinstance(content, bytes) else "é".encode()
        assert path.read_bytes() == (b"by a function" if callable(content) else expected)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", IRREGULAR)
def test_only_a_regular_file_is_replaced(tmp_path, kind):
    path = tmp_path / "name"
    IRREGULAR[kind](path)
    before, names = os.lstat(path), sorted(os.listdir(tmp_path))
    for attempt in (lambda: check_target(path), lambda: write_atomically(path, b"ours")):
        with pytest.raises(ConfigError, match="not a regular file"):
            attempt()
    assert os.lstat(path) == before
    assert sorted(os.listdir(tmp_path)) == names
    if kind == "link":
        assert (tmp_path / "target").read_text() == "theirs"


def test_a_device_is_never_replaced():
    with pytest.raises(ConfigError, match="a device"):
        write_atomically("/dev/null", b"")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), ValueError(), KeyboardInterrupt()]
)
@pytest.mark.parametrize("where", ["content", "fsync", "replace"])
def test_a_failure_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch, error, where):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_):
        raise error

    if where != "content":
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)):
        write_atomically(path, fail if where == "content" else b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_clean_up_that_fails_hides_no_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no clean-up")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", lambda file: 1 / 0)


def test_writers_at_once_never_mix(tmp_path):
    path, together = tmp_path / "file", threading.Barrier(4)

    def write(letter):
        together.wait()
        for _ in range(10):
            write_atomically(path, letter * 10_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_text()
    assert len(content) == 10_000
    assert len(set(content)) == 1
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path):
    (tmp_path / "private").touch(0o600)
    (tmp_path / "plain").write_bytes(b"")
    for name in ("private", "new"):
        write_atomically(tmp_path / name, b"")
    modes = {name: os.stat(tmp_path / name).st_mode for name in ("private", "new", "plain")}
    assert stat.S_IMODE(modes["private"]) == 0o600
    assert modes["new"] == modes["plain"]


def test_a_path_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", b"")
    with pytest.raises(ConfigError, match="cannot name a file"):
        write_atomically(tmp_path / "a\0b", b"")


def test_a_tilde_is_a_home_folder_or_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_home("~/runs") == tmp_path / "runs"
    assert expand_home("a~b") == pathlib.Path("a~b")
    with pytest.raises(ConfigError, match=r"~nobody-has-this-name/a.*give a path"):
        expand_home("~nobody-has-this-name/a")
