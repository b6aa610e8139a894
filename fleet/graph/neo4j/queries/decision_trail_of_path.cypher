MATCH (f:File {path: $path})<-[:TOUCHED]-(:Task)<-[:AFFECTS]-(d:Decision)
WITH DISTINCT d
WHERE d.stub = false AND ($status IS NULL OR d.status = $status)
  AND ($from IS NULL OR d.decided_at >= $from) AND ($to IS NULL OR d.decided_at <= $to)
WITH d ORDER BY coalesce(d.decided_at, $never), d.id SKIP $skip LIMIT $limit
RETURN d.id AS id, d.story_id AS story_id, d.title AS title, d.category AS category, d.status AS status,
       d.origin AS origin, d.rationale AS rationale, d.alternatives AS alternatives,
       d.created_at AS created_at, d.decided_at AS decided_at,
       d.council_id AS council_id, d.approval_id AS approval_id, d.decision_hash AS decision_hash,
       head([(d)-[:AUTHORED_BY]->(a:Actor) | a.id]) AS author,
       [(d)-[r:DECIDED_BY]->(a:Actor) | {principal: a.id, as_role: r.as_role, verdict: r.verdict, at: r.at}] AS decided_by,
       [(d)-[:BASED_ON]->(e) | {kind: labels(e)[0], id: e.id,
         verdict: coalesce(e.verdict, head([(e)-[:REPORTED]->(p:Report) | p.verdict]), e.outcome)}] AS evidence,
       [(d)-[:AFFECTS]->(t:Task) | t.id] AS tasks,
       [(d)-[:SUPERSEDES]->(o:Decision) | o.id] AS supersedes
ORDER BY coalesce(d.decided_at, $never), d.id

