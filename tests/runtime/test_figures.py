"""Pictures of any title, under any matplotlib settings, and failures that are warnings."""

import os
import subprocess
import sys

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miras.runtime.figures import png, printable_line, write_figure

TITLES = [
    "$x^{$", "$", "$$", "a $b$ c", r"\frac{", r"\$", "漢字 ✓", "a\nb", "\x00\x1b", "\udcff", "%s",
]  # fmt: skip


def titled(title):
    def draw(figure):
        axes = figure.add_subplot()
        axes.set_title(printable_line(title))
        axes.set_yticks([0, 1], [printable_line(title)] * 2)
        axes.plot([0, 1], label=printable_line(title) or "_")
        axes.legend()

    return png(draw, (3, 2))


@pytest.mark.parametrize("title", TITLES)
def test_any_title_is_drawn(title):
    assert titled(title).startswith(b"\x89PNG")


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.text(max_size=20))
def test_any_text_is_drawn(title):
    assert titled(title).startswith(b"\x89PNG")


def test_dollars_stand_for_themselves():
    assert titled("$x$") != titled("x")


def test_the_settings_of_the_user_do_not_matter_and_stay():
    want = titled("a")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "savefig.format": "pdf"}):
        before = dict(matplotlib.rcParams)
        assert titled("a") == want
        assert dict(matplotlib.rcParams) == before


def test_a_picture_that_fails_is_a_warning(tmp_path):
    said = []

    def fail():
        raise RuntimeError("no\nink")

    assert not write_figure(tmp_path / "a.png", fail, said.append)
    (tmp_path / "b.png").mkdir()
    assert not write_figure(tmp_path / "b.png", lambda: b"", said.append)
    assert not write_figure(tmp_path / "none" / "c.png", lambda: b"", said.append)
    assert write_figure(tmp_path / "d.png", lambda: b"png", said.append)
    assert "could not be drawn (no ink)" in said[0]
    assert len(said) == 3
    assert not any("\n" in line for line in said)
    assert {path.name for path in tmp_path.iterdir()} == {"b.png", "d.png"}


@pytest.mark.multiprocess
def test_the_backend_of_a_notebook_does_not_matter():
    code = (
        "import os, sys; from miras.runtime.figures import png; "
        "assert png(lambda figure: figure.add_subplot(), (2, 2))[:4] == b'\\x89PNG'; "
        "assert 'matplotlib.pyplot' not in sys.modules; print(os.environ['MPLBACKEND'])"
    )
    backend = "module://matplotlib_inline.backend_inline"
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == backend
