"""Totals of a day by scope: port, rules and adapters."""
