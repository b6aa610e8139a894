"""Redaction: finds secrets in text, JSON and streams, and replaces them (pure)."""
