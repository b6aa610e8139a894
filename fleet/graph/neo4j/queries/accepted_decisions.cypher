MATCH (d:Decision {category: $category})
WHERE d.status = 'ACCEPTED' AND ($project_id IS NULL OR d.project_id = $project_id)
RETURN d.id AS id, d.story_id AS story_id, d.project_id AS project_id, d.title AS title, d.category AS category,
       d.rationale AS rationale, d.alternatives AS alternatives, d.decided_at AS decided_at
ORDER BY coalesce(d.decided_at, 0) DESC, d.id LIMIT $limit
