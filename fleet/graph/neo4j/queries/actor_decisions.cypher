MATCH (a:Actor {id: $actor_id})<-[r:DECIDED_BY]-(d:Decision)
WHERE r.at >= $from AND r.at <= $to
WITH toInteger(floor(r.at / 86400000.0)) AS day, count(*) AS number
RETURN 'decisions' AS part, day, number
ORDER BY day LIMIT $limit
