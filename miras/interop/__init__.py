"""Weights in and out: checkpoints in the layouts of Hugging Face and flash-linear-attention."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.interop.known import known_layouts, layout_of
    from miras.interop.layout import Layout, register
    from miras.interop.pretrained import Pretrained, load_pretrained, model_of
    from miras.interop.runs import export_run, import_run
    from miras.interop.save import save_pretrained

__all__ = [
    "Layout",
    "Pretrained",
    "export_run",
    "import_run",
    "known_layouts",
    "layout_of",
    "load_pretrained",
    "model_of",
    "register",
    "save_pretrained",
]

lazy.package(
    __name__,
    {
        ".known": ("known_layouts", "layout_of"),
        ".layout": ("Layout", "register"),
        ".pretrained": ("Pretrained", "load_pretrained", "model_of"),
        ".runs": ("export_run", "import_run"),
        ".save": ("save_pretrained",),
    },
)
