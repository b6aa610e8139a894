"""What each event changes in the decision graph; one module per family of events."""

from fleet.graph.effects.at import MAX_TEXT
from fleet.graph.effects.table import EFFECTS, NONE, Effect, effects

__all__ = ["EFFECTS", "MAX_TEXT", "NONE", "Effect", "effects"]
