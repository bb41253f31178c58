"""Lineage: which model leads to which by which change, from the registry of presets."""

from miras.analysis.lineage.tree import Relative, lineage

__all__ = ["Relative", "lineage"]
