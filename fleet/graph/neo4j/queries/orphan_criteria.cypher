MATCH (s:Story {id: $story_id})-[h:HAS_CRITERION]->(c:Criterion)
WHERE h.removed_v IS NULL
RETURN 'RP-30' AS rule, 'Criterion' AS kind, c.id AS id,
       {task: size([(c)<-[:COVERS]-(t:Task) | t.id]) > 0,
        evidence: s.closed_at IS NULL OR size([(c)<-[:EVIDENCE_FOR]-(e:Report) | e.id]) > 0} AS links
ORDER BY id LIMIT $limit
