"""Runs the arms of the evaluation harness."""
