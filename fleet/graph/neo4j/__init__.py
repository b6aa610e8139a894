"""The decision graph over Bolt: Neo4j or anything that speaks its protocol."""
