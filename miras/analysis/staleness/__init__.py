"""Staleness: the distance of a chunked memory to the online one, by chunk and refinements.

`plan` selects the settings that a model allows, `text` the held-out text, `measure` measures,
`report` and `plot` write the results. Nothing here trains a model or updates a memory.
"""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.analysis.staleness.plan import ChunkSetting, StalenessPlan, make_plan

__all__ = ["ChunkSetting", "StalenessPlan", "make_plan"]

lazy.package(__name__, {".plan": ("StalenessPlan", "ChunkSetting", "make_plan")})
