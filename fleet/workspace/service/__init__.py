"""Runs the stages of the pipeline and reads their results."""
