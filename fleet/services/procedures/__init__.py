"""Procedures: how each owed intent of a story is carried out, step by journaled step."""

__all__: list[str] = []
