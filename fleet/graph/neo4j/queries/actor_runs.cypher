MATCH (a:Actor {id: $actor_id})<-[:EXECUTED_BY]-(r:Run)
WHERE r.started_at >= $from AND r.started_at <= $to
WITH toInteger(floor(r.started_at / 86400000.0)) AS day, count(*) AS number
RETURN 'runs' AS part, day, number
ORDER BY day LIMIT $limit
