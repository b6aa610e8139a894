MATCH (s:Story {id: $story_id})-[h:HAS_CRITERION]->(c:Criterion)
WHERE h.removed_v IS NULL
RETURN 'RP-30' AS rule, 'Criterion' AS kind, c.id AS id,
       {task: size([(t:Task)-[:COVERS]->(c) | t.id]) > 0,
        evidence: s.closed_at IS NULL OR size([(e:Report)-[:EVIDENCE_FOR]->(c) | e.id]) > 0} AS links
ORDER BY id LIMIT $limit
