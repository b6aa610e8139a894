"""The one composition root: settings and addresses become stores, models and services.

Source: docs/design/style.md, section 1, rule 7.
"""
