MATCH p = (d:Decision {id: $decision_id})<-[:DEPENDS_ON*0..6]-(x:Decision)
WHERE length(p) <= $depth
WITH x, min(length(p)) AS steps
MATCH (x)-[:AFFECTS]->(t:Task)
WITH t, min(steps) + 1 AS distance
RETURN 'Task' AS kind, t.id AS id, distance, t.title AS title, t.state AS state
ORDER BY distance, t.id LIMIT $limit
