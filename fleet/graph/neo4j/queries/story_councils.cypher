MATCH (c:Council {story_id: $story_id})
WHERE c.stub = false
RETURN 'council' AS part, c.id AS id, c.kind AS kind, c.status AS status, c.outcome AS outcome, c.reason AS reason,
       c.tokens_total AS tokens_total, c.minority_report_digest AS minority_report_digest
ORDER BY id LIMIT $limit
