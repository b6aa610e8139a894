"""Events: the envelope, one module per family, upcasters."""

from fleet.events.envelope import GENESIS_HASH, Head, NewEvent, StoredEvent, event_hash

__all__ = ["GENESIS_HASH", "Head", "NewEvent", "StoredEvent", "event_hash"]
