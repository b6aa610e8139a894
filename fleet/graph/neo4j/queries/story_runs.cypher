MATCH (r:Run)
WHERE r.story_id = $story_id AND r.started_at >= 0
WITH coalesce(r.outcome, 'running') AS outcome, count(*) AS number
RETURN 'runs' AS part, outcome, number
ORDER BY outcome LIMIT $limit
