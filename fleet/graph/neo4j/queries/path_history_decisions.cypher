MATCH (d:Decision)-[:AFFECTS]->(t:Task)-[:TOUCHED]->(f:File {path: $path})
WITH DISTINCT d
RETURN 'Decision' AS kind, d.id AS id, d.story_id AS story_id, d.title AS title, d.status AS state,
       coalesce(d.decided_at, d.created_at) AS at
ORDER BY coalesce(d.decided_at, d.created_at, 0) DESC, d.id LIMIT $limit
