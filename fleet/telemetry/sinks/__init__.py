"""Adapters that keep or send figures, spans and log lines."""
