MATCH (s:Story {id: $story_id})-[h:HAS_PLAN]->(p:PlanVersion)
WHERE h.current = true
MATCH (p)-[:CONTAINS_DECISION]->(o:Decision)
WITH p, collect(o.id) AS inside
WITH p, inside, [(p)-[:HAS_TASK]->(t:Task) | t.id] AS planned
MATCH (p)-[:CONTAINS_DECISION]->(d:Decision)
WHERE d.stub = false
WITH d, size([(d)<-[:DEPENDS_ON]-(x:Decision) WHERE x.id IN inside | x.id]) AS dependents,
     size([(d)<-[:GOVERNS]-(g:Decision) WHERE g.id IN inside | g.id]) AS governed_by,
     size([(d)-[:AFFECTS]->(t:Task) WHERE t.id IN planned | t.id]) AS affects
RETURN d.id AS id, d.title AS title, d.category AS category, d.status AS status, d.created_at AS created_at,
       dependents, governed_by, affects, dependents + governed_by + affects AS degree
ORDER BY degree DESC, created_at, id LIMIT $limit
