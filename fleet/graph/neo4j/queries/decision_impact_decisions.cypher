MATCH p = (d:Decision {id: $decision_id})<-[:DEPENDS_ON*1..6]-(x:Decision)
WHERE length(p) <= $depth AND x.id <> $decision_id
WITH x, min(length(p)) AS distance
RETURN 'Decision' AS kind, x.id AS id, distance, x.title AS title, x.status AS state
ORDER BY distance, x.id LIMIT $limit
