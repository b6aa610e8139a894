MATCH (s:Story {id: $story_id})-[:HAS_DECISION]->(d:Decision)
RETURN 'RP-32' AS rule, 'Decision' AS kind, d.id AS id,
       {author: size([(d)-[:AUTHORED_BY]->(a:Actor) | a.id]) > 0,
        rationale: coalesce(d.rationale, '') <> '',
        decider: coalesce(d.status, 'PROPOSED') = 'PROPOSED' OR size([(d)-[:DECIDED_BY]->(a:Actor) | a.id]) > 0,
        time: d.created_at IS NOT NULL AND (d.status = 'PROPOSED' OR d.decided_at IS NOT NULL)} AS links
ORDER BY id LIMIT $limit
