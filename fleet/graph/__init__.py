"""The decision graph as data: its schema, what each event changes in it, and its digest."""
