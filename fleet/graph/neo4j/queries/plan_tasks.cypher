MATCH (p:PlanVersion {id: $plan_id})-[:HAS_TASK]->(t:Task)
RETURN t.id AS id, t.title AS title, t.role AS role, t.state AS state, t.priority AS priority,
       t.estimated_hours AS estimated_hours,
       [(t)-[n:DEPENDS_ON]->(o:Task) WHERE n.plan_id = $plan_id | o.id] AS needs
ORDER BY id LIMIT $limit
