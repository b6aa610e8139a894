"""The journal of a story: steps with their effect classes, recorded once."""
