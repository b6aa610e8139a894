MATCH (c:Council {story_id: $story_id})
WHERE c.status = 'DECIDED'
RETURN 'RP-33' AS rule, 'Council' AS kind, c.id AS id,
       {candidates: size([(c)-[:CONSIDERED]->(k:Candidate) | k.id]) > 0,
        ballots: c.tally IS NOT NULL OR size([(c)-[:HAS_BALLOT]->(b:Ballot) | b.id]) > 0,
        decision_hash: c.decision_hash IS NOT NULL,
        tokens: c.tokens_total IS NOT NULL} AS links
ORDER BY id LIMIT $limit
