MATCH (s:Story {id: $story_id})-[:DEPLOYED_AS]->(d:Deployment)
RETURN 'RP-38' AS rule, 'Deployment' AS kind, d.id AS id,
       {run: size([(d)-[:BY]->(r:Run) | r.id]) > 0, outcome: d.status IS NOT NULL, tree: d.tree_digest IS NOT NULL} AS links
ORDER BY id LIMIT $limit
