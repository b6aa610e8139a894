"""Types of the REST API: what requests hold and answers look like."""
