"""Tokenizers of models, from their files."""

from fleet.adapters.tokenizers.files import FileTokenizers

__all__ = ["FileTokenizers"]
