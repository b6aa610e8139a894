MATCH (q:Question {status: 'open'})
WHERE ($severity IS NULL OR q.severity = $severity) AND q.asked_at <= $asked_before
RETURN q.id AS id, q.story_id AS story_id, q.kind AS kind, q.text AS text, q.severity AS severity,
       q.about_kind AS about_kind, q.about_id AS about_id, q.asked_at AS asked_at,
       $now_ms - q.asked_at AS age_ms,
       [(q)-[:ASKED_BY]->(a:Actor) | a.id] AS asked_by,
       [(q)<-[b:BLOCKED_BY]-(t:Task) WHERE b.removed_v IS NULL | t.id] AS blocking
ORDER BY CASE q.severity WHEN 'blocking' THEN 0 ELSE 1 END, q.asked_at, q.id SKIP $skip LIMIT $limit
