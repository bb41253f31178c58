"""The rule: four parts, their order and the dtypes in which they are computed."""

from typing import TYPE_CHECKING

from miras.runtime import lazy

if TYPE_CHECKING:
    from miras.rule.precision import Precision
    from miras.rule.rule import Rule

__all__ = ["Precision", "Rule"]

lazy.package(__name__, {".precision": ("Precision",), ".rule": ("Rule",)})
