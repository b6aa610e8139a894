MATCH (s:Story {id: $story_id})-[:HAS_PLAN]->(p:PlanVersion)-[:HAS_TASK]->(t:Task)
RETURN 'task' AS part, p.id AS plan_id, t.id AS id, t.title AS title, t.role AS role, t.kind AS kind, t.state AS state,
       t.priority AS priority, t.estimated_hours AS estimated_hours, t.risk AS risk, t.done_at AS done_at,
       [(t)-[n:DEPENDS_ON]->(o:Task) WHERE n.plan_id = p.id | o.id] AS needs,
       [(t)-[b:BLOCKED_BY]->(w) WHERE b.removed_v IS NULL | {kind: labels(w)[0], id: w.id, reason: b.reason}] AS blocked_by
ORDER BY plan_id, id LIMIT $limit
