MATCH (p:Approval {story_id: $story_id})
WHERE p.stub = false AND ($gate IS NULL OR p.gate = $gate)
RETURN p.id AS id, p.gate AS gate, p.role AS role, p.status AS status, p.delegated AS delegated,
       p.subject_kind AS subject_kind, p.subject_id AS subject_id, p.subject_digest AS subject_digest,
       p.requested_at AS requested_at, p.decided_at AS decided_at, p.notes AS notes,
       [(p)-[r:DECIDED_BY]->(a:Actor) | {principal: a.id, as_role: r.as_role, at: r.at}] AS decided_by
ORDER BY p.requested_at, p.id SKIP $skip LIMIT $limit
