"""The council: evidence first, blind ballots second (pure)."""

from fleet.council.choice import Choice, Contender, VoterBallot, choose, ranked_pairs
from fleet.council.config import CouncilConfig, CouncilDefaults

__all__ = ["Choice", "Contender", "CouncilConfig", "CouncilDefaults", "VoterBallot", "choose", "ranked_pairs"]
