"""Commands on stories: run, story, goal, replay."""
