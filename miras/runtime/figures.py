"""Figures as PNG files, drawn by matplotlib's Agg backend whatever backend the user has chosen.

Pyplot is not used. A figure only shows results that are also in other files, so a figure that
cannot be drawn causes a warning, not an error.
"""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from etils import epath

from miras.runtime import paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#333333"  # of text and ticks


def png(draw: "Callable[[Figure], None]", size: tuple[float, float]) -> bytes:
    r"""Draw a figure as a PNG.

    Text is literal: `$` and `\` have no special meaning. Characters that no font has are boxes.

    Args:
        draw: draws into an empty figure of 150 dots per inch.
        size: width and height in inches.
    """
    with _without_user_backend(), _default_style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        return out.getvalue()


def style_curves(axes: "Axes", title: str, *, size: int, margin: float) -> None:
    """Give axes of curves over steps a title of a size in points, and a grid without a frame."""
    axes.set_title(title, loc="left", color=INK, fontsize=size, fontweight="bold")
    axes.set_xlabel("step", color=INK)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(x=margin, y=0.08)
    axes.tick_params(colors=INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")


def write_figure(
    path: str | os.PathLike[str], make: Callable[[], bytes], warn: Callable[[str], object]
) -> bool:
    """Write a figure, or warn in one sentence that it cannot be drawn or written.

    Args:
        path: the file, which may be on an object store.
        make: draws the figure; it imports matplotlib itself.
        warn: called with the warning.

    Returns:
        Whether the figure was written.
    """
    try:
        paths.write(epath.Path(path), make())
    except Exception as error:  # matplotlib raises nearly anything, and the results matter more
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        warn(f"warning: {path} could not be drawn ({reason}); all other results are complete.")
        return False
    return True


@contextlib.contextmanager
def _without_user_backend() -> Iterator[None]:
    """Import matplotlib even if MPLBACKEND names a backend that is not installed."""
    if "matplotlib" in sys.modules:
        yield
        return
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
            with contextlib.suppress(Exception):  # for pyplot in the user's code
                matplotlib.rcParams["backend"] = chosen
    yield


@contextlib.contextmanager
def _default_style() -> Iterator[None]:
    """The default style of matplotlib, with literal text, within the block."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # about characters that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def printable_line(text: str) -> str:
    """A text in one line, with `?` for characters that cannot be printed."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(char if char.isprintable() else "?" for char in line)
