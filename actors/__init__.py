"""Actors: thin shells that build a service, delegate to it, and translate errors."""
