"""Write strength: a measure in which inner rates of different rules compare."""

from miras.analysis.strength.curve import Strength, strength
from miras.analysis.strength.match import Match, match_strength, matches

__all__ = ["Match", "Strength", "match_strength", "matches", "strength"]
