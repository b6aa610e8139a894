MATCH (p:Approval {story_id: $story_id})
WHERE p.stub = false
RETURN 'approval' AS part, p.id AS id, p.gate AS gate, p.role AS role, p.status AS status, p.delegated AS delegated,
       p.requested_at AS requested_at, p.decided_at AS decided_at
ORDER BY requested_at, id LIMIT $limit
