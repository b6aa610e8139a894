"""Composes engines, policies of models, tokenizers and weights."""
