"""Staleness: how far a chunked memory is from the online one, over chunks and refinements.

`plan` says what can be measured, `text` on what, `measure` does it, `report` and `plot` tell it,
`command` is `miras staleness`. Nothing is trained, and nothing here updates a memory.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.staleness.plan import Plan, Setting, make_plan

__all__ = ["Plan", "Setting", "make_plan"]

lazy.package(__name__, {".plan": ("Plan", "Setting", "make_plan")})
