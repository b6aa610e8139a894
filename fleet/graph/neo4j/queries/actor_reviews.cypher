MATCH (a:Actor {id: $actor_id})<-[r:REVIEWED_BY]-(t:Task)
WHERE r.at >= $from AND r.at <= $to
WITH toInteger(floor(r.at / 86400000.0)) AS day, count(*) AS number
RETURN 'reviews' AS part, day, number
ORDER BY day LIMIT $limit
