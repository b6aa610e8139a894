"""Composes the desk and what the fronts need."""
