MATCH (p:Approval {story_id: $story_id})
RETURN 'RP-35' AS rule, 'Approval' AS kind, p.id AS id,
       {gate: p.gate IS NOT NULL,
        subject: p.subject_digest IS NOT NULL AND size([(p)-[:FOR]->(n) | n.id]) > 0,
        decider: coalesce(p.status, '') IN ['requested', 'expired'] OR size([(p)-[:DECIDED_BY]->(a:Actor) | a.id]) > 0} AS links
ORDER BY id LIMIT $limit
