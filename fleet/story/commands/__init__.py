"""Commands on stories: one model for each, with what guards it and the events that it records."""
