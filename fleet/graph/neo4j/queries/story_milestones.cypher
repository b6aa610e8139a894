MATCH (s:Story {id: $story_id})-[r:REACHED]->(m:Milestone)
RETURN 'milestone' AS part, m.id AS id, m.name AS name, m.ts AS ts, m.ref AS ref, r.v AS v
ORDER BY v DESC, id LIMIT $milestones
