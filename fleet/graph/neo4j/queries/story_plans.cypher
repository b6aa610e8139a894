MATCH (s:Story {id: $story_id})-[h:HAS_PLAN]->(p:PlanVersion)
RETURN 'plan' AS part, p.id AS id, p.version AS version, p.status AS status, p.author_id AS author_id,
       p.rationale AS rationale, p.digest AS digest, p.created_at AS created_at, coalesce(h.current, false) AS current
ORDER BY version DESC, id LIMIT $limit
