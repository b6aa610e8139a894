"""Who is told outside of the fleet: the port of targets, and what follows the log for each of them (LC-80)."""
