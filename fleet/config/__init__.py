"""Settings and config files: validated completely before anything starts (GL-22)."""
