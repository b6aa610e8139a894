"""Duties of the owner: one procedure for each intent that a story owes."""
