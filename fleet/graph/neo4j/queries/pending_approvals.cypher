MATCH (p:Approval {status: 'requested'})
RETURN 'approval' AS part, p.id AS id, p.story_id AS story_id, p.gate AS gate, p.role AS role,
       p.requested_at AS requested_at
ORDER BY requested_at, id LIMIT $approvals
