"""The forge: branches and change requests of a repository."""
