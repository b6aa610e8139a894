"""The owner of stories: the shard that leases them, folds their events and carries out what they owe."""
