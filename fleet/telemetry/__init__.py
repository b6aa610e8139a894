"""Figures, spans and log lines: what a fleet tells about itself, and where it sends it."""
