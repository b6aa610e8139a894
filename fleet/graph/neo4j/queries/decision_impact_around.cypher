MATCH p = (d:Decision {id: $decision_id})<-[:DEPENDS_ON*0..6]-(x:Decision)
WHERE length(p) <= $depth
WITH x, min(length(p)) AS steps
MATCH (x)-[:AFFECTS]->(t:Task)
WITH t, min(steps) AS steps
MATCH (t)-[:TOUCHED|COVERS|PART_OF]-(n)
WITH n, min(steps) + 2 AS distance
RETURN labels(n)[0] AS kind, n.id AS id, distance, coalesce(n.path, n.text, n.tool) AS title,
       coalesce(n.status, n.outcome) AS state
ORDER BY distance, n.id LIMIT $limit
