MATCH (t:Task)-[:TOUCHED]->(f:File {path: $path})
WITH DISTINCT t
RETURN 'Task' AS kind, t.id AS id, t.story_id AS story_id, t.title AS title, t.state AS state,
       coalesce(t.done_at, t.created_at) AS at
ORDER BY coalesce(t.done_at, t.created_at, 0) DESC, t.id LIMIT $limit
