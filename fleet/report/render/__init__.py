"""The report as a document: Markdown, HTML and JSON (pure)."""
