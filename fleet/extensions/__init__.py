"""Extensions: what the main job does not need. Entry points name them, wiring loads them, no module imports them."""
