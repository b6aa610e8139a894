"""Commands on projects: project, epic, discovery, ceremony."""
