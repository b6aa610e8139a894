"""Composes sandboxes, tools and plug-ins."""
