MATCH (q:Question {story_id: $story_id, status: 'open'})
RETURN 'question' AS part, q.id AS id, q.kind AS kind, q.text AS text, q.severity AS severity, q.asked_at AS asked_at
ORDER BY asked_at, id LIMIT $limit
