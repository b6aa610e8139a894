MATCH (t:Task)
WHERE t.story_id = $story_id AND t.state IS NOT NULL
RETURN 'RP-31' AS rule, 'Task' AS kind, t.id AS id,
       {plan: size([(t)<-[:HAS_TASK]-(p:PlanVersion) | p.id]) > 0,
        served: size([(t)-[:COVERS]->(c:Criterion) | c.id]) + size([(t)<-[:AFFECTS]-(d:Decision) | d.id]) > 0,
        run: t.state <> 'done' OR size([(t)<-[:PART_OF]-(r:Run) | r.id]) > 0,
        reviewer: t.state <> 'done' OR size([(t)-[:REVIEWED_BY]->(a:Actor) | a.id]) > 0} AS links
ORDER BY id LIMIT $limit
