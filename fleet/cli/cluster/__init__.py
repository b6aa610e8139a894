"""Commands on clusters: cluster, submit, deploy."""
