MATCH (s:Story {id: $story_id})-[:HAS_DECISION]->(d:Decision)-[:DEPENDS_ON]->(n:Decision)
RETURN d.id AS id, n.id AS needs
ORDER BY id, needs LIMIT $limit
