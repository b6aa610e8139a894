"""Notifications by webhook and mail."""
