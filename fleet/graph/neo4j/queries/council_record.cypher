MATCH (c:Council {id: $council_id})
RETURN c.id AS id, c.story_id AS story_id, c.kind AS kind, c.status AS status, c.outcome AS outcome, c.reason AS reason,
       c.rule_version AS rule_version, c.seed AS seed, c.quorum AS quorum, c.decided_in AS decided_in,
       c.winner AS winner, c.verdict AS verdict, c.estimate AS estimate, c.tokens_total AS tokens_total,
       c.tally AS tally, c.counterfactuals AS counterfactuals, c.minority_report_digest AS minority_report_digest,
       c.decision_hash AS decision_hash, c.approval_id AS approval_id,
       [(c)-[:ABOUT]->(n) | n.id] AS about,
       [(c)<-[:RESULT_OF]-(d:Decision) | d.id] AS decisions,
       [(c)-[r:CONSIDERED]->(k:Candidate) | {id: k.id, digest: k.digest, author: head([(k)-[:AUTHORED_BY]->(a:Actor) | a.id]),
         round: k.round, gates_ok: k.gates_ok, failed_gates: k.failed_gates, trusted_passed: k.trusted_passed,
         trusted_total: k.trusted_total, cluster_size: k.cluster_size, diff_lines: k.diff_lines,
         lint_errors: k.lint_errors, tree_digest: k.tree_digest, winner: coalesce(r.winner, false)}] AS candidates,
       [(c)-[:HAS_BALLOT]->(b:Ballot) | {id: b.id, round: b.round, voter: b.voter, votes: b.votes,
         ranking: b.ranking}] AS ballots
