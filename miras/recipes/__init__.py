"""Recipes: named runs of the literature, of any model: its size, data, batch, steps and optimiser.

`miras train moneta --recipe miras-340m-15b` trains the preset `moneta` as the recipe says.
"""

from miras.recipes import miras  # noqa: F401 - registers
from miras.recipes.registry import Recipe, find, recipes, register

__all__ = ["Recipe", "find", "recipes", "register"]
