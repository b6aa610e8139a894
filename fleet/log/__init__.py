"""The event log: the store of truth, with leases, feed, inbox, dead letters and snapshots."""
