"""Trajectories of stories: their rows, and the port of the sinks that take these."""
