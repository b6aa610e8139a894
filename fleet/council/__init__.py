"""The council: evidence first, blind ballots second (pure).

`parse_request` checks a request; `evolve` folds recorded facts into a `CouncilState`; `owed` says what to do next;
`conclude` gives the outcome with its record.
"""
