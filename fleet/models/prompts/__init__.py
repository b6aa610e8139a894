"""Prompts: templates, what a role reads, how tools are described to a model (pure)."""
