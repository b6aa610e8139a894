MATCH (r:Run)-[:PART_OF]->(t:Task)-[:TOUCHED]->(f:File {path: $path})
WITH DISTINCT r
RETURN 'Run' AS kind, r.id AS id, r.story_id AS story_id, r.tool AS title, r.outcome AS state,
       coalesce(r.finished_at, r.started_at) AS at
ORDER BY coalesce(r.finished_at, r.started_at, 0) DESC, r.id LIMIT $limit
