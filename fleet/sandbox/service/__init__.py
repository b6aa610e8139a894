"""The supervisor of a node: claims runs by key, records their results, streams their output."""
