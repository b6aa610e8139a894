"""The log on Redis: scripts, keys, connection, and the mapping of driver errors."""
