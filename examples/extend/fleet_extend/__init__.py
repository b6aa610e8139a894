"""Examples of everything that can be added to a fleet without changing it (docs/extending.md)."""
