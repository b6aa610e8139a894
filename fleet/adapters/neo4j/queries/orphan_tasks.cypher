MATCH (t:Task)
WHERE t.story_id = $story_id AND t.state IS NOT NULL
RETURN 'RP-31' AS rule, 'Task' AS kind, t.id AS id,
       {plan: size([(p:PlanVersion)-[:HAS_TASK]->(t) | p.id]) > 0,
        served: size([(t)-[:COVERS]->(c:Criterion) | c.id]) + size([(d:Decision)-[:AFFECTS]->(t) | d.id]) > 0,
        run: t.state <> 'done' OR size([(r:Run)-[:PART_OF]->(t) | r.id]) > 0,
        reviewer: t.state <> 'done' OR size([(t)-[:REVIEWED_BY]->(a:Actor) | a.id]) > 0} AS links
ORDER BY id LIMIT $limit
