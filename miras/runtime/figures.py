"""Pictures: drawn by matplotlib's Agg, as PNG, whatever the user's matplotlib is set up for.

Nothing here touches pyplot, or a backend that the user has chosen. A picture shows what is in a
folder anyway, so that one which cannot be drawn is a warning and ends nothing.
"""

import contextlib
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from miras.runtime.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(draw: "Callable[[Figure], None]", size: tuple[float, float]) -> bytes:
    r"""Draw a figure as a PNG.

    All text in it is plain: `$` and `\` stand for themselves. Letters that no font has are boxes.

    Args:
        draw: puts everything into an empty figure of 150 dots per inch.
        size: width and height in inches.
    """
    with _own_backend(), _plain():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format="png")
        return out.getvalue()


def write_picture(
    path: pathlib.Path, make: Callable[[], bytes], warn: Callable[[str], object]
) -> bool:
    """Write a picture, or warn in one sentence that it could not be drawn or written.

    Args:
        path: the file.
        make: draws it; what it needs of matplotlib is imported in it.
        warn: is told the sentence.

    Returns:
        Whether the picture is there.
    """
    try:
        write_whole(path, make())
    except Exception as error:  # matplotlib raises nearly anything, and the results matter more
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        warn(f"warning: {path} could not be drawn ({reason}); nothing else is missing.")
        return False
    return True


@contextlib.contextmanager
def _own_backend() -> Iterator[None]:
    """Import matplotlib even where MPLBACKEND names a backend that is not installed."""
    if "matplotlib" in sys.modules:
        yield
        return
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen
            with contextlib.suppress(Exception):  # for the user's own pyplot, where it can be
                matplotlib.rcParams["backend"] = chosen
    yield


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Matplotlib's defaults and text without mathematics, for the time of the block."""
    import matplotlib

    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def plain(text: str) -> str:
    """A text of any origin in one line that can be drawn, with `?` for what has no letter."""
    whole = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(letter if letter.isprintable() else "?" for letter in whole)
