"""`scan` and `read`: the public functions over whole sequences, their checks and their dispatch."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.sequence.read import read
    from miras.sequence.scan import scan, scan_with_loss

__all__ = ["read", "scan", "scan_with_loss"]

lazy.package(__name__, {".read": ("read",), ".scan": ("scan", "scan_with_loss")})
