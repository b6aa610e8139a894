MATCH (s:Story {id: $story_id})
RETURN 'story' AS part, s.id AS id, s.project_id AS project_id, s.title AS title, s.state AS state,
       s.disposition AS disposition, s.rigor AS rigor, s.lifecycle AS lifecycle, s.version AS version,
       s.created_at AS created_at, s.closed_at AS closed_at, s.tree_digest AS tree_digest,
       [(s)-[h:HAS_CRITERION]->(c:Criterion) WHERE h.removed_v IS NULL
         | {id: c.id, text: c.text, position: c.position, status: c.status}] AS criteria,
       [(s)-[h:HAS_CONSTRAINT]->(k:Constraint) WHERE h.removed_v IS NULL | {key: k.key, value: k.value}] AS constraints
