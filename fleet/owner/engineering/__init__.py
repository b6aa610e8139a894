"""Work sessions as the owner of a story runs them: each reply and each call is a step on record."""
