"""The OpenAI-compatible front of the engines."""
