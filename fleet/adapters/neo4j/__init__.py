"""The decision graph in Neo4j or in the embedded store that speaks its protocol. Portable Cypher only."""

from fleet.adapters.neo4j.graph import Neo4jGraph

__all__ = ["Neo4jGraph"]
