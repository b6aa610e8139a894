MATCH (s:Story {id: $story_id})-[:HAS_DECISION]->(d:Decision)
WHERE d.stub = false
RETURN 'decision' AS part, d.id AS id, d.title AS title, d.rationale AS rationale, d.category AS category,
       d.status AS status, d.created_at AS created_at, d.decided_at AS decided_at,
       head([(d)-[:AUTHORED_BY]->(a:Actor) | a.id]) AS author_id,
       [(d)-[:AFFECTS]->(t:Task) | {id: t.id, title: t.title}] AS tasks,
       [(d)-[r:DEPENDS_ON|GOVERNS|RELATES_TO|SUPERSEDES]->(o:Decision) | {rel: type(r), dst: o.id}] AS links
ORDER BY created_at, id LIMIT $limit
