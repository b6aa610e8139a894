"""Commands on a story: what each one checks and records."""
