MATCH (s:Story {project_id: $project_id})
WHERE s.closed_at IS NULL AND coalesce(s.disposition, 'active') <> 'archived'
RETURN 'story' AS part, s.id AS id, s.title AS title, s.state AS state, s.disposition AS disposition, s.rigor AS rigor,
       s.created_at AS created_at
ORDER BY id LIMIT $limit
