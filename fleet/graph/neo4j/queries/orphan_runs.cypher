MATCH (r:Run)
WHERE r.story_id = $story_id AND r.started_at >= 0
RETURN 'RP-34' AS rule, 'Run' AS kind, r.id AS id,
       {principal: size([(r)-[:EXECUTED_BY]->(a:Actor) | a.id]) > 0,
        rule: r.rule_id IS NOT NULL,
        effect: r.effect IS NOT NULL,
        outcome: r.finished_at IS NULL OR r.outcome IS NOT NULL} AS links
ORDER BY id LIMIT $limit
