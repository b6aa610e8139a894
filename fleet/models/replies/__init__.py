"""Replies: the code, the JSON and the tool calls in what a model wrote (pure)."""
