"""The decision graph in memory, for unit tests and the simulation."""
